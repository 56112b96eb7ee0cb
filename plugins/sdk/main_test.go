package sdk_test

import (
	"testing"

	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { sdktest.Main(m, testPlugin()) }
