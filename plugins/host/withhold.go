package host

// Withhold names variables of gild's environment that no plugin may see, whatever its
// manifest says: those that hold secrets of pipelines. It adds to those named before, and
// is for processes that are started afterwards.
func (h *Host) Withhold(names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		h.withheld[name] = true
	}
}

// passed are those of the variables a manifest names that its plugin may see.
func (h *Host) passed(names []string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var allowed []string
	for _, name := range names {
		if !h.withheld[name] {
			allowed = append(allowed, name)
		}
	}
	return allowed
}
