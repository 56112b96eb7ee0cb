// Package http is the test that asks the booted image for a page.
//
//	tests:
//	  - uses: http
//	    with: {port: 80, contains: "Welcome to nginx"}
//	  - uses: http
//	    with:
//	      scheme: https
//	      host: www.example.com
//	      path: /health?full=1
//	      request-headers: {Accept: application/json}
//	      status: 200
//	      headers: {Content-Type: application/json}
//	      contains: ['"status":"ok"']
//	      within: 1m
//
// The request comes from outside, through the guest's network card. It is made again until
// the answer is as asked or `within` is over, so that a service may take a moment to start.
// With https the certificate isn't verified. A redirect isn't followed: it is an answer with
// a status and a Location header, which can be asked for. Of the body, the first MiB counts.
package http
