package catalog

import (
	"cmp"
	"slices"
)

// proposals is how many references an error proposes at most.
const proposals = 3

// closest returns the known texts that differ from got by few letters, the nearest first.
func closest(got string, known []string) []string {
	limit := max(1, len([]rune(got))/3)
	distances := map[string]int{}
	var near []string
	for _, k := range known {
		if d := distance(got, k); d <= limit {
			distances[k] = d
			near = append(near, k)
		}
	}
	slices.SortFunc(near, func(a, b string) int { return cmp.Or(cmp.Compare(distances[a], distances[b]), cmp.Compare(a, b)) })
	return near[:min(len(near), proposals)]
}

// distance is the number of letters to insert, remove or replace to get from a to b.
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range from {
		diagonal := row[0]
		row[0] = i + 1
		for j, s := range to {
			above := row[j+1]
			replace := diagonal
			if r != s {
				replace++
			}
			row[j+1] = min(replace, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(to)]
}
