// Package publish is the step that records a tested image in the catalog.
//
//	publish:
//	  name: "${{ pipeline.name }}-${{ pipeline.release }}"
//	  channel: stable
//	  tags: {team: web}
//	  deprecate-after: 90d
//
// It is made from a pipeline's publish section and runs only when every test has passed.
// The image gets the next build number of its name and release. `channel` is a pointer
// with a history that is moved to it, and what `base: {image: name@channel}` looks up.
//
// Its outputs are the image's `id` and its `build` number.
package publish
