package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// handler is what [NewHandler] returns.
type handler struct {
	services map[string]*service
	do       Handler
	keys     Credentials
	log      *slog.Logger
	now      func() time.Time
}

// NewHandler returns the endpoint of all services: which one is meant is said in the
// request's signature. It checks signature, date (within 15 minutes of this machine's
// clock) and session token, then the parameters against the model, and only then calls h.
//
// A panic with [http.ErrAbortHandler] in h drops the connection without an answer.
func NewHandler(h Handler, c Credentials, log *slog.Logger) http.Handler {
	services, err := load()
	if err != nil {
		// The models are part of the program and don't change: a broken one never passed a test.
		panic(err)
	}
	return &handler{services: services, do: h, keys: c, log: log, now: time.Now}
}

// settle is how long after its body a request is answered at the earliest. When Go's HTTP
// client has sent a body it still looks whether that was its end, and the AWS SDK for Go
// closes the body as soon as an answer begins. From the same machine an answer can come in
// between: then the client drops the connection with the answer half read. That happened to
// 7 of 10,000 calls, and to none with this on a machine that isn't busy.
const settle = time.Millisecond

// call is one request on its way through.
type call struct {
	service *service
	op      *operation
	id      string
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{id: uuid.NewString(), service: h.guess(r)}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			h.fail(w, c, &Error{Code: "RequestEntityTooLarge", Message: "The request is too large", Status: http.StatusRequestEntityTooLarge})
			return
		}
		// The client is gone, or sends something that is no HTTP; it can't be told.
		panic(http.ErrAbortHandler)
	}
	read := time.Now()
	answer, fault := h.serve(r, c, body)
	time.Sleep(settle - time.Since(read))
	if fault != nil {
		h.fail(w, c, fault)
		return
	}
	h.answer(w, c, answer)
}

// guess names the service of a request before its signature is read, so that a refusal
// has the right format.
func (h *handler) guess(r *http.Request) *service {
	if s, why := parseSignature(r.Header); why == noRefusal {
		if known, ok := h.services[s.service]; ok {
			return known
		}
	}
	target, _, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	for _, s := range h.services {
		if s.target != "" && s.target == target {
			return s
		}
	}
	if strings.HasPrefix(r.URL.Path, "/snapshots") {
		return h.services["ebs"]
	}
	return h.services["ec2"]
}

func (h *handler) serve(r *http.Request, c *call, body []byte) (map[string]any, error) {
	sig, why := parseSignature(r.Header)
	if why != noRefusal {
		return nil, c.service.deny(why)
	}
	if _, ok := h.services[sig.service]; !ok {
		return nil, &Error{Code: "InvalidAction", Message: "this sandbox has no service " + strconv.Quote(sig.service), Status: http.StatusBadRequest}
	}
	routed, labels := c.service.route(r)
	// Who may not ask isn't told what there is, and its parameters aren't read.
	account, why := sig.verify(r, body, routed != nil && routed.unsigned, h.keys, h.now())
	if why != noRefusal {
		return nil, c.service.deny(why)
	}
	op, form, fault := c.service.operation(r, routed, body)
	if fault != nil {
		return nil, fault
	}
	c.op = op
	params, problems := c.service.params(op, labels, form, r, body)
	if len(problems) > 0 {
		return nil, refuse(c.service, problems)
	}
	req := &Request{
		Service: c.service.name, Action: op.name, Region: sig.region, Account: account, AccessKey: sig.accessKey,
		Params: params, ID: c.id,
	}
	if op.input != nil && op.input.payload != "" {
		req.Body = bytes.NewReader(body)
	}
	return h.call(r.Context(), c, req)
}

// call asks the handler and holds its answer against the model.
func (h *handler) call(ctx context.Context, c *call, req *Request) (map[string]any, error) {
	answer, err := h.do.Handle(ctx, req)
	if err != nil {
		return nil, err
	}
	if answer == nil {
		answer = map[string]any{}
	}
	out := c.op.output
	if out == nil {
		out = &shape{name: "(none)", kind: "structure"}
	}
	plain, err := conform(out, answer, c.op.name)
	if err != nil {
		return nil, err
	}
	return plain.(map[string]any), nil
}

// operation finds what a request asks for, and reads the form it comes in.
func (s *service) operation(r *http.Request, routed *operation, body []byte) (*operation, *tree, *Error) {
	switch s.protocol {
	case protocolREST:
		if routed == nil {
			return nil, nil, &Error{Code: "UnknownOperationException", Message: "no operation has this path", Status: http.StatusNotFound}
		}
		return routed, nil, nil
	case protocolJSON:
		name := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), s.target+".")
		op, ok := s.operations[name]
		if !ok {
			return nil, nil, Errorf("UnknownOperationException", "this sandbox has no operation %q of %s", name, s.name)
		}
		return op, nil, nil
	}
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost {
		raw += "&" + string(body)
	}
	form, p := parseForm(raw)
	if p != nil {
		return nil, nil, refuse(s, []problem{*p})
	}
	return s.action(form)
}

func (s *service) action(form *tree) (*operation, *tree, *Error) {
	name, version := form.take("Action"), form.take("Version")
	op := s.operations[name]
	switch {
	case name == "":
		return nil, nil, Errorf("MissingAction", "The request must contain the parameter Action")
	case op == nil:
		return nil, nil, Errorf("InvalidAction", "The action %s is not valid for this web service: this sandbox has no such action of %s", name, s.name)
	case version != s.version:
		return nil, nil, Errorf("NoSuchVersion", "The requested version (%s) of service %s does not exist", version, s.name)
	}
	return op, form, nil
}

// route finds the operation of a path of a REST service, and what stands in the path's places.
func (s *service) route(r *http.Request) (*operation, map[string]string) {
	if s.protocol != protocolREST {
		return nil, nil
	}
	got := strings.Split(r.URL.EscapedPath(), "/")
	for _, op := range s.operations {
		if op.method != r.Method || len(op.path) != len(got) {
			continue
		}
		labels := map[string]string{}
		fits := true
		for i, want := range op.path {
			if strings.HasPrefix(want, "{") {
				value, err := url.PathUnescape(got[i])
				labels[strings.Trim(want, "{}")] = value
				fits = fits && err == nil && value != ""
			} else {
				fits = fits && want == got[i]
			}
		}
		if fits {
			return op, labels
		}
	}
	return nil, nil
}

// params reads a request's parameters and checks them.
func (s *service) params(op *operation, labels map[string]string, form *tree, r *http.Request, body []byte) (map[string]any, []problem) {
	in := op.input
	if in == nil {
		in = &shape{kind: "structure"}
	}
	v := validator{name: func(m *member) string { return m.name }}
	var params map[string]any
	switch s.protocol {
	case protocolREST:
		var problems []problem
		if params, problems = readREST(op, labels, r, body); len(problems) > 0 {
			return nil, problems
		}
	case protocolJSON:
		raw, err := parseJSON(body)
		if err != nil {
			return nil, []problem{{kind: wrong, got: "The body", want: "a structure: " + err.Error()}}
		}
		got, p := readJSON(in, raw, "")
		if p != nil {
			return nil, []problem{*p}
		}
		params = got.(map[string]any)
	default:
		f := formReader{ec2: s.protocol == protocolEC2}
		params = f.structure(in, form, "").(map[string]any)
		if len(f.problems) > 0 {
			return nil, f.problems
		}
		v.name = f.name
	}
	v.structure(in, params, "")
	return params, v.problems
}

func (h *handler) answer(w http.ResponseWriter, c *call, v map[string]any) {
	var body []byte
	var err error
	head := w.Header()
	switch c.service.protocol {
	case protocolEC2, protocolQuery:
		head.Set("Content-Type", "text/xml;charset=UTF-8")
		body = answerXML(c.service, c.op, c.id, v)
	default:
		head.Set("Content-Type", c.service.contentType())
		body, err = answerJSON(head, c.op, v)
	}
	if err != nil {
		h.fail(w, c, err)
		return
	}
	h.send(w, c, c.op.status, body)
}

func (s *service) contentType() string {
	if s.protocol == protocolJSON {
		return "application/x-amz-json-" + s.json
	}
	return "application/json"
}

func (h *handler) send(w http.ResponseWriter, c *call, status int, body []byte) {
	w.Header().Set("X-Amzn-Requestid", c.id)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		h.log.Debug("the client left before its answer", "service", c.service.name, "request", c.id, "error", err)
	}
}
