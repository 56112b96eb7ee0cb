package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

type (
	startedKey  struct{}
	tolerateKey struct{}
	rawKey      struct{}
)

// middlewares adds to every call: when it began, a time limit for each try, patience with
// what was just made, and errors that explain themselves.
func middlewares(c *Clients) []func(*middleware.Stack) error {
	return []func(*middleware.Stack) error{func(s *middleware.Stack) error {
		explain := middleware.InitializeMiddlewareFunc("GildExplain", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			ctx = context.WithValue(ctx, startedKey{}, time.Now())
			out, meta, err := next.HandleInitialize(ctx, in)
			return out, meta, c.explain(ctx, meta, err)
		})
		if err := s.Initialize.Add(explain, middleware.After); err != nil {
			return err
		}
		attempt := middleware.FinalizeMiddlewareFunc("GildAttempt", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			return oneTry(ctx, c.config.Timing.Attempt, in, next)
		})
		return s.Finalize.Insert(attempt, "Retry", middleware.After)
	}}
}

// slow is a try that took too long. It hides the cancelled context below it, which the SDK
// would take for the caller's wish to stop.
type slow struct{ after time.Duration }

func (s *slow) Error() string        { return fmt.Sprintf("no answer within %s", s.after) }
func (s *slow) Timeout() bool        { return true }
func (s *slow) RetryableError() bool { return true }

// unsettled is an error that passes by itself because what it is about was just made.
type unsettled struct{ error }

func (u *unsettled) Unwrap() error        { return u.error }
func (u *unsettled) RetryableError() bool { return true }

func oneTry(ctx context.Context, limit time.Duration, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, meta, err := next.HandleFinalize(limited, in)
	if err == nil {
		return out, meta, nil
	}
	if ctx.Err() == nil && limited.Err() != nil {
		return out, meta, &slow{after: limit}
	}
	var api smithy.APIError
	if errors.As(err, &api) && tolerated(ctx, api) {
		return out, meta, &unsettled{err}
	}
	return out, meta, err
}

// Passing is an answer that AWS may give for a while although all is well.
type Passing struct {
	// Code is the error code. Text, unless empty, must be part of the message.
	Code, Text string
}

// Tolerate returns a context whose calls are tried again, for [Timing.Settling], when they fail
// in one of these ways: what was just made isn't known everywhere at once.
func Tolerate(ctx context.Context, errs ...Passing) context.Context {
	return context.WithValue(ctx, tolerateKey{}, errs)
}

func tolerated(ctx context.Context, api smithy.APIError) bool {
	errs, _ := ctx.Value(tolerateKey{}).([]Passing)
	for _, p := range errs {
		if p.Code == api.ErrorCode() && strings.Contains(api.ErrorMessage(), p.Text) {
			return true
		}
	}
	return false
}

// credentials marks the errors of the SDK's chain: trying the call again doesn't mend them.
type credentials struct{ aws.CredentialsProvider }

type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error        { return e.error }
func (e *credentialsError) RetryableError() bool { return false }

// Retrieve implements [aws.CredentialsProvider].
func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return got, &credentialsError{err}
	}
	return got, nil
}
