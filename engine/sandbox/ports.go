package sandbox

import (
	"slices"
)

// wideRange is from how many ports on a rule's range isn't opened as a whole.
const wideRange = 256

// usualPorts are those that a wide rule opens.
var usualPorts = []int{22, 25, 53, 80, 443, 3000, 3306, 5000, 5432, 6379, 8000, 8080, 8443, 9000, 9090, 9200}

// portsOf are the TCP ports of an instance that its groups let in. Who may come in isn't
// looked at, because all callers come from loopback.
func (s *Server) portsOf(i *instance) []int {
	if !i.PublicIP {
		return nil
	}
	open := map[int]bool{}
	for _, id := range i.Groups {
		g := s.groups.get(id)
		if g == nil {
			continue
		}
		for _, r := range g.Rules {
			// A rule for members of a group lets in other instances, and no caller is one.
			if r.Egress || r.Group != "" || r.Protocol != "tcp" && r.Protocol != "-1" {
				continue
			}
			r.open(open)
		}
	}
	var out []int
	for port := range open {
		out = append(out, port)
	}
	slices.Sort(out)
	return out
}

func (r rule) open(ports map[int]bool) {
	from, to := r.From, r.To
	if r.Protocol == "-1" {
		from, to = 1, 65535
	}
	if to-from < wideRange {
		for port := max(from, 1); port <= to; port++ {
			ports[int(port)] = true
		}
		return
	}
	for _, port := range usualPorts {
		if int64(port) >= from && int64(port) <= to {
			ports[port] = true
		}
	}
}

// openPorts brings the machines of a group's instances up to date after a rule has changed.
// It needs the lock.
func (s *Server) openPorts(groupID string) {
	for _, i := range s.instances.all {
		if slices.Contains(i.Groups, groupID) {
			s.setPorts(i)
		}
	}
}

// setPorts brings the machine of one instance up to date.
func (s *Server) setPorts(i *instance) {
	if m := s.machine(i.ID); m != nil {
		s.workFailed("open ports", i.ID, m.SetPorts(s.portsOf(i)))
	}
}
