package sandbox

import (
	"maps"
	"slices"
)

// Wild is the matcher of filters.
func Wild(pattern, text string) bool { return wild(pattern, text) }

// EC2Operations are the names of all of them.
func EC2Operations() []string { return slices.Sorted(maps.Keys(ec2Operations())) }

// Judged decides on one access by policy documents.
func Judged(action, resource string, keys map[string][]string, documents ...string) (string, error) {
	var docs []*policyDocument
	for _, text := range documents {
		doc, err := parsePolicy(text)
		if err != nil {
			return "", err
		}
		docs = append(docs, doc)
	}
	return []string{"implicit deny", "allowed", "explicit deny"}[judge(docs, access{action, resource, keys})], nil
}

// Trusts reports whether a role with a trust policy lets a principal assume it.
func Trusts(document, principal, account string) bool {
	return (&role{Trust: document}).trusts(principal, account, "")
}

// DecodeDenial reads an encoded authorization failure message.
func DecodeDenial(text string) (string, bool) { return decodeDenial(text) }

// SetProfile makes one instance profile known, as IAM does.
func (s *Server) SetProfile(name, arn, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findProfile = func(_, which string) (profile, bool) {
		return profile{ARN: arn, ID: "AIPATEST", Name: name, Role: role}, which == name || which == arn
	}
}

// Snapshot returns the file of a snapshot.
func (s *Server) SnapshotFile(id string) (string, error) { return s.snapshotFile(id) }

// PublicParameter looks the SSM parameter of a seed up.
func (s *Server) PublicParameter(region, name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publicParameter(region, name)
}
