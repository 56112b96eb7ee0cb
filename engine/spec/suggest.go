package spec

import "fmt"

// Suggest returns the known name that got was most likely meant to be, or "" when
// none is near: at most two letters changed, added, left out or swapped, and fewer
// than half of them. Of equally near names the first in known wins.
func Suggest(got string, known []string) string {
	best, bestDistance := "", 3
	for _, name := range known {
		if len(name) > len(got)+2 || len(got) > len(name)+2 {
			continue
		}
		d := distance([]rune(got), []rune(name))
		if d < bestDistance && 2*d < max(len(got), len(name)) {
			best, bestDistance = name, d
		}
	}
	return best
}

// didYouMean returns the hint for an unknown name, or otherwise.
func didYouMean(got string, known []string, otherwise string) string {
	if s := Suggest(got, known); s != "" {
		return fmt.Sprintf("did you mean %q?", s)
	}
	return otherwise
}

// distance is the Damerau distance (optimal string alignment) of two texts.
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
