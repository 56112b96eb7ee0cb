// Package retain is the step that retires older builds of the image just published.
//
//	retain: {keep: 5, max-age: 180d, min-age: 7d}
//
// It is made from a pipeline's retain section and runs when everything else is done. A
// build that a channel points to, or that another image was built from, always stays; so
// does every build younger than `min-age`. Of the rest, `keep` of the newest stay unless
// they are older than `max-age`.
//
// Its output `retired` lists what was removed, one line for each with the reason.
package retain
