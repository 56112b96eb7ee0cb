// Package pluginv1 is the wire format between gild and its plugins, version 1: messages
// and services generated from plugin.proto, and the constants of the handshake.
package pluginv1

//go:generate go run ../protogen
