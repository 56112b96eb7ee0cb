package kernelargs_test

import (
	"testing"

	"github.com/gildhq/gild/steps/steptest"
)

func TestMain(m *testing.M) { steptest.Main(m) }
