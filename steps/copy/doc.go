// Package copy is the step that copies a published image to one region.
//
//	copy:
//	  regions: [us-east-1, ap-south-1]
//
// It is made from a pipeline's copy section, once for each region, so that every region is
// copied to, tried again and reported on its own: one that fails doesn't undo the others.
// A copy counts only when its digests have been verified.
//
// Its output `location` is where the copy is.
package copy
