// Package wire speaks the protocols of AWS services: an HTTP request of an SDK comes in, a
// plain [Request] goes to a [Handler], and its plain answer or [Error] goes out as AWS
// would send it. It is driven by extracts of AWS's own service models (models/, made by
// trim), so names, types and limits are AWS's and not ours.
//
// Spoken are the EC2 query protocol (ec2), the query protocol (sts, iam), JSON 1.1 (ssm,
// kms, ec2-instance-connect) and REST with JSON (ebs). Every request must be signed with
// Signature Version 4 in its headers; requests signed in their URL are refused.
//
// The package keeps no state, knows nothing of what an operation does, and never writes a
// credential or a parameter to its log.
package wire

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Request is one call of an operation, already authenticated and valid by the model.
type Request struct {
	// Service is the name in the signature: "ec2", "ssm", "ebs", "sts", "iam", "kms" or
	// "ec2-instance-connect".
	Service string
	// Action is the operation, such as "RunInstances".
	Action string
	// Region is the one that the request was signed for.
	Region string
	// Account owns the access key: twelve digits.
	Account string
	// AccessKey signed the request.
	AccessKey string
	// Params hold the parameters by the model's member names, only those that were given:
	// string, int64, float64, bool, []byte, time.Time, []any and map[string]any.
	Params map[string]any
	// Body is the payload of an operation that has one, else nil. It is no longer than
	// [MaxBody].
	Body io.Reader
	// ID is the request's id, sent back to the client.
	ID string
}

// MaxBody is how many bytes a request's body may have.
const MaxBody = 4 << 20

// Error is a failure as a client sees it.
type Error struct {
	// Code as AWS writes it, such as "InvalidAMIID.NotFound"; for services whose model names
	// exceptions either the exception ("NoSuchEntityException") or its code ("NoSuchEntity").
	Code string
	// Message is shown to people.
	Message string
	// Status is the HTTP status; 0 means the usual one of the code.
	Status int
	// Detail are further members of the exception, such as the Reason of an EBS error.
	// Protocols without such members leave them out.
	Detail map[string]any
}

// Error returns code and message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf makes an [Error] with the usual status of its code.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Handler does what requests ask for.
type Handler interface {
	// Handle returns the answer by the model's member names. Numbers of any size, named
	// string types, typed slices and maps with string keys are taken for what they are; a
	// nil value or pointer is left out. A member that the model doesn't have, a value of
	// another type and a missing required member are mistakes of the handler: the client
	// gets an internal error, and the log says which. So does any error but an [*Error].
	Handle(ctx context.Context, r *Request) (map[string]any, error)
}

// Credentials knows access keys. Safe for concurrent use.
type Credentials interface {
	// Lookup returns the secret of an access key and the account it belongs to.
	Lookup(accessKey string) (secret, account string, ok bool)
}

// Sessions is implemented by [Credentials] that also give out temporary keys. Without it,
// and for a key that it doesn't know, a session token is refused.
type Sessions interface {
	// Session returns the token that requests with this key must carry, and when it ends;
	// false for a key that needs none.
	Session(accessKey string) (token string, expires time.Time, ok bool)
}
