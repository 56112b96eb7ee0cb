package run

// trie is an Aho–Corasick automaton: it reads a text once, byte by byte, and knows at
// each byte the longest pattern that ends there and the longest beginning of a pattern
// that the text ends with. Children are lists, not tables: a private key has tens of
// thousands of nodes, nearly all with one child.
type trie struct {
	nodes []trieNode
	// first are the root's children, by byte: most of a text never leaves the root.
	first [256]int32
}

type trieNode struct {
	// child is the first child and sibling the next child of the same parent; 0 is none.
	child, sibling int32
	// fail is the node of the longest proper suffix that is in the trie too.
	fail  int32
	depth int32
	// found is the length of the longest pattern that ends here, or 0.
	found int32
	char  byte
}

func newTrie(patterns []string) trie {
	t := trie{nodes: make([]trieNode, 1)}
	for _, p := range patterns {
		t.add(p)
	}
	t.link()
	return t
}

func (t *trie) add(pattern string) {
	var at int32
	for i := range len(pattern) {
		next := t.child(at, pattern[i])
		if next == 0 {
			next = int32(len(t.nodes))
			t.nodes = append(t.nodes, trieNode{char: pattern[i], depth: int32(i + 1), sibling: t.nodes[at].child})
			t.nodes[at].child = next
			if at == 0 {
				t.first[pattern[i]] = next
			}
		}
		at = next
	}
	if at != 0 {
		t.nodes[at].found = t.nodes[at].depth
	}
}

// link sets the fail links, level by level: a node's link is on a level above it.
func (t *trie) link() {
	queue := make([]int32, 0, len(t.nodes))
	for c := t.nodes[0].child; c != 0; c = t.nodes[c].sibling {
		queue = append(queue, c)
	}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		for c := t.nodes[at].child; c != 0; c = t.nodes[c].sibling {
			n := &t.nodes[c]
			n.fail = t.next(t.nodes[at].fail, n.char)
			if n.found == 0 {
				n.found = t.nodes[n.fail].found
			}
			queue = append(queue, c)
		}
	}
}

func (t *trie) child(at int32, c byte) int32 {
	if at == 0 {
		return t.first[c]
	}
	for n := t.nodes[at].child; n != 0; n = t.nodes[n].sibling {
		if t.nodes[n].char == c {
			return n
		}
	}
	return 0
}

// occursIn tells whether any pattern is in text.
func (t *trie) occursIn(text string) bool {
	var state int32
	for i := range len(text) {
		if state = t.next(state, text[i]); t.nodes[state].found > 0 {
			return true
		}
	}
	return false
}

// next is the state after reading c in state at.
func (t *trie) next(at int32, c byte) int32 {
	for {
		if n := t.child(at, c); n != 0 {
			return n
		}
		if at == 0 {
			return 0
		}
		at = t.nodes[at].fail
	}
}
