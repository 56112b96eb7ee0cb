// Package download is the step that downloads a file and puts it on the machine.
//
//	customize:
//	  - uses: download
//	    with:
//	      url: https://example.com/agent-2.1.0.tar.gz
//	      sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
//	      to: /opt/agent.tar.gz
//	  - uses: download
//	    with:
//	      url: http://artifacts.internal/tool
//	      sha256: fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9
//	      to: /usr/local/bin/tool
//	      mode: "0755"
//	      parents: true
//	      allow-private: true
//
// The file is fetched by gild itself, so that the machine needs no network and no curl, and
// is put on the machine only when its SHA-256 is right. At most 10 redirects are followed.
// Addresses of this machine and of private networks are refused, after a redirect too,
// unless `allow-private` is true. The proxy that http_proxy, https_proxy and no_proxy of
// gild's own environment name is used. A file may have up to 8 GiB, and a server that sends
// nothing for a minute is given up.
package download
