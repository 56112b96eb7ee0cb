//go:build !crashtest

package main

import "github.com/gildhq/gild/engine/builder/aws"

// awsTiming is how patiently AWS is waited for: as the builder thinks best.
func awsTiming() aws.Timing { return aws.Timing{} }
