// Package buildertest is the suite that every builder passes: the contract of
// [builder.Builder] as tests. What a machine or an image is differs from builder to
// builder; what may be relied on doesn't.
package buildertest
