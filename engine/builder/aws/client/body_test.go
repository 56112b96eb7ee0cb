package client_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// quickServer answers as soon as it has a body of the announced length. Like Go's own
// client it looks for the body's end only then, and drops the answer when that goes wrong.
type quickServer struct {
	answer string
	calls  int
	sent   []string
}

func (q *quickServer) RoundTrip(r *http.Request) (*http.Response, error) {
	q.calls++
	content := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, content); err != nil {
		return nil, err
	}
	q.sent = append(q.sent, string(content))
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, Request: r, ContentLength: int64(len(q.answer)),
		Body: &lateAnswer{request: r.Body, Reader: strings.NewReader(q.answer)},
	}, nil
}

// lateAnswer looks for the end of the request's body before it is read.
type lateAnswer struct {
	request io.ReadCloser
	looked  bool
	io.Reader
}

func (l *lateAnswer) Read(p []byte) (int, error) {
	if !l.looked {
		l.looked = true
		if n, err := io.Copy(io.Discard, l.request); n != 0 || err != nil {
			return 0, fmt.Errorf("the connection is dropped: the body went on for %d bytes: %w", n, err)
		}
	}
	return l.Reader.Read(p)
}

func (l *lateAnswer) Close() error { return l.request.Close() }

func TestAQuickAnswerIsNotLost(t *testing.T) {
	t.Parallel()
	q := &quickServer{answer: `<CreateImageResponse><requestId>ok</requestId><imageId>ami-1</imageId></CreateImageResponse>`}
	c, err := client.New(client.Config{Endpoint: "http://127.0.0.1:1", Timing: quick, Transport: q})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Region(t.Context(), "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	id, name := "i-1", strings.Repeat("x", 100_000)
	out, err := client.Call(t.Context(), r.EC2.CreateImage, &ec2.CreateImageInput{InstanceId: &id, Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	if q.calls != 1 || *out.ImageId != "ami-1" {
		t.Errorf("%d calls made the image %s", q.calls, *out.ImageId)
	}
	if !strings.Contains(q.sent[0], "Name="+name) {
		t.Errorf("sent %d bytes, and not the name", len(q.sent[0]))
	}
}
