package lock

import "regexp"

// maxVersion bounds the text of a version, in bytes.
const maxVersion = 64

// versionText is a version of Semantic Versioning 2.0.0, as its specification suggests: no part is empty,
// and no number begins with a zero that isn't all of it.
var versionText = regexp.MustCompile(`^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)` +
	`(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?` +
	`(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// ValidVersion reports whether a plugin's version is one of Semantic Versioning 2.0.0, such
// as 1.4.0 or 2.0.0-rc.1, of at most 64 characters.
func ValidVersion(version string) bool {
	return len(version) <= maxVersion && versionText.MatchString(version)
}
