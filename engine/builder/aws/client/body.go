package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// ownBody gives every request a body of its own. Once Go's client has sent a body of the
// announced length, it asks it for more to see that there is none; the SDK has closed the
// body by then if the answer came quickly, as it does from the same machine, and a closed
// body of the SDK's answers with an error in place of the end. Then Go drops the connection
// with the answer half read, and the SDK makes a call again that had its effect.
type ownBody struct{ next aws.HTTPClient }

// Do implements [aws.HTTPClient].
func (o ownBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return o.next.Do(r)
	}
	content, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, fmt.Errorf("read what to send to %s: %w", r.URL.Host, err)
	}
	own := r.Clone(r.Context())
	own.Body = io.NopCloser(bytes.NewReader(content))
	return o.next.Do(own)
}
