package wire

import (
	"net/http"
	"net/url"
	"testing"
)

// FuzzREST reads requests of EBS direct: path, query, headers and body.
func FuzzREST(f *testing.F) {
	for _, seed := range [][5]string{
		{http.MethodPost, "/snapshots", "", "", `{"VolumeSize": 1, "Tags": [{"Key": "a", "Value": "b"}]}`},
		{http.MethodPut, "/snapshots/snap-0123456789abcdef0/blocks/7", "", "524288", "bytes"},
		{http.MethodGet, "/snapshots/snap-0123456789abcdef0/blocks/7", "blockToken=AAA%3D", "", ""},
		{http.MethodGet, "/snapshots/snap-0123456789abcdef0/blocks", "startingBlock=5&maxResults=100&pageToken=x", "", ""},
		{http.MethodGet, "/snapshots/%2f%zz/blocks", "maxResults=1e3&maxResults=&%=", "", ""},
		{http.MethodPost, "/snapshots/completion/snap-0123456789abcdef0", "", "-1", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	services, err := load()
	if err != nil {
		f.Fatal(err)
	}
	s := services["ebs"]
	f.Fuzz(func(t *testing.T, method, path, query, length, body string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}
		for _, name := range []string{"X-Amz-Data-Length", "X-Amz-Changedblockscount", "X-Amz-Checksum", "X-Amz-Checksum-Algorithm", "X-Amz-Progress"} {
			r.Header.Set(name, length)
		}
		routed, labels := s.route(r)
		op, _, fault := s.operation(r, routed, []byte(body))
		if fault != nil {
			return
		}
		for name, value := range labels {
			if value == "" {
				t.Errorf("%s was routed to %s without %s", path, op.name, name)
			}
		}
		params, problems := s.params(op, labels, nil, r, []byte(body))
		checkRead(t, s, op, params, problems)
	})
}
