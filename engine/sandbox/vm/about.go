package vm

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// about is what a machine's metadata says of its hardware. What it doesn't say has a
// usable default.
type about struct {
	mac     net.HardwareAddr
	address netip.Prefix
	kind    string // the instance type
}

// defaultMAC is locally administered. Each machine has a wire of its own.
var defaultMAC = net.HardwareAddr{0x02, 0x67, 0x69, 0x6c, 0x64, 0x02}

// askMetadata asks the metadata service what the machine will read there: what is in the
// machine and what is said of it must agree.
func askMetadata(service http.Handler) about {
	a := about{mac: defaultMAC, kind: "sandbox"}
	if service == nil {
		return a
	}
	token, ok := ask(service, http.MethodPut, "/latest/api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if !ok {
		return a
	}
	get := func(name string) string {
		value, _ := ask(service, http.MethodGet, "/latest/meta-data/"+name, http.Header{"X-Aws-Ec2-Metadata-Token": {token}})
		return value
	}
	if kind := get("instance-type"); kind != "" {
		a.kind = kind
	}
	mac, err := net.ParseMAC(get("mac"))
	if err != nil || len(mac) != 6 {
		return a
	}
	a.mac = mac
	address, err := netip.ParseAddr(get("local-ipv4"))
	if err != nil {
		return a
	}
	subnet, err := netip.ParsePrefix(get("network/interfaces/macs/" + mac.String() + "/subnet-ipv4-cidr-block"))
	if err == nil && subnet.Contains(address) {
		a.address = netip.PrefixFrom(address, subnet.Bits())
	}
	return a
}

// ask makes one request without a network.
func ask(service http.Handler, method, path string, header http.Header) (body string, ok bool) {
	r, err := http.NewRequest(method, "http://169.254.169.254"+path, nil)
	if err != nil {
		return "", false
	}
	r.Header, r.RemoteAddr, r.RequestURI = header, "169.254.169.254:0", path
	w := answer{header: http.Header{}, status: http.StatusOK}
	service.ServeHTTP(&w, r)
	return strings.TrimSpace(w.body.String()), w.status == http.StatusOK
}

// answer keeps what a handler answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
