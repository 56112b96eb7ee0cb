package wire

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
)

// fail sends an error as the service does. One that isn't an [*Error] is ours: it is
// logged, and the client only learns that something broke.
func (h *handler) fail(w http.ResponseWriter, c *call, err error) {
	var e *Error
	if !errors.As(err, &e) {
		action := ""
		if c.op != nil {
			action = c.op.name
		}
		h.log.Error("a request failed inside the sandbox", "service", c.service.name, "action", action, "request", c.id, "error", err)
		e = &Error{Code: c.service.internal(), Message: "An internal error has occurred", Status: http.StatusInternalServerError}
	}
	code, status, model := c.service.code(e, c.op)
	head := w.Header()
	switch c.service.protocol {
	case protocolEC2:
		head.Set("Content-Type", "text/xml;charset=UTF-8")
		h.send(w, c, status, ec2Error(code, e.Message, c.id))
	case protocolQuery:
		head.Set("Content-Type", "text/xml")
		h.send(w, c, status, queryError(c.service.namespace, code, e.Message, c.id, status))
	default:
		head.Set("Content-Type", c.service.contentType())
		head.Set("X-Amzn-Errortype", code)
		body, err := jsonError(c.service, model, code, e)
		if err != nil {
			h.log.Error("an error's details aren't JSON", "service", c.service.name, "code", code, "error", err)
		}
		h.send(w, c, status, body)
	}
}

// internal is the code for what went wrong inside the service.
func (s *service) internal() string {
	switch {
	case s.protocol == protocolEC2:
		return "InternalError"
	case s.protocol == protocolQuery:
		return "InternalFailure"
	case s.name == "kms":
		return "KMSInternalException"
	case s.name == "ebs":
		return "InternalServerException"
	}
	return "InternalServerError"
}

// code returns an error's code and status, and the exception it is in the model, if any.
func (s *service) code(e *Error, op *operation) (code string, status int, model *shape) {
	code, status = e.Code, http.StatusBadRequest
	if usual, ok := usualStatus(s.protocol, code); ok {
		status = usual
	}
	if op != nil {
		for _, x := range op.errors {
			if x.name != e.Code && (x.code == "" || x.code != e.Code) {
				continue
			}
			model = x
			if x.code != "" {
				code = x.code
			}
			if x.httpCode != 0 {
				status = x.httpCode
			} else if x.fault {
				status = http.StatusInternalServerError
			}
			break
		}
	}
	if e.Status != 0 {
		status = e.Status
	}
	return code, status, model
}

// usualStatus is the status of codes that no model lists.
func usualStatus(p protocol, code string) (int, bool) {
	switch code {
	case "AuthFailure", "OptInRequired":
		return http.StatusUnauthorized, true
	case "UnauthorizedOperation", "AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken", "ExpiredToken":
		return http.StatusForbidden, true
	case "DryRunOperation":
		return http.StatusPreconditionFailed, true
	case "InternalError", "InternalFailure", "InternalServerError", "InternalServerException", "InsufficientInstanceCapacity":
		return http.StatusInternalServerError, true
	case "RequestLimitExceeded", "ServiceUnavailable", "Unavailable":
		return http.StatusServiceUnavailable, true
	case "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "MissingAuthenticationTokenException":
		// The older JSON services say 400, those with paths 403.
		return http.StatusForbidden, p == protocolREST
	}
	return 0, false
}

func ec2Error(code, message, id string) []byte {
	w := &xmlWriter{}
	w.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>")
	w.leaf("Code", code)
	w.leaf("Message", message)
	w.WriteString("</Error></Errors>")
	w.leaf("RequestID", id)
	w.close("Response")
	return w.Bytes()
}

func queryError(namespace, code, message, id string, status int) []byte {
	w := &xmlWriter{}
	w.WriteString(`<ErrorResponse xmlns="` + namespace + `"><Error>`)
	side := "Sender"
	if status >= http.StatusInternalServerError {
		side = "Receiver"
	}
	w.leaf("Type", side)
	w.leaf("Code", code)
	w.leaf("Message", message)
	w.close("Error")
	w.leaf("RequestId", id)
	w.close("ErrorResponse")
	return w.Bytes()
}

func jsonError(s *service, model *shape, code string, e *Error) ([]byte, error) {
	body := map[string]any{}
	maps.Copy(body, e.Detail)
	name := "message"
	if model != nil && model.byName["Message"] != nil || s.protocol == protocolREST {
		name = "Message"
	}
	body[name] = e.Message
	if s.protocol == protocolJSON {
		body["__type"] = code
	}
	return json.Marshal(body)
}

// deny words why a request isn't authenticated as the service does.
func (s *service) deny(why refusal) *Error {
	if s.protocol == protocolEC2 {
		return denyEC2(why)
	}
	words := map[refusal][3]string{ // query, JSON, message
		missingToken: {"MissingAuthenticationToken", "MissingAuthenticationTokenException", "Request is missing Authentication Token"},
		incomplete:   {"IncompleteSignature", "IncompleteSignatureException", "The request's signature doesn't have what Signature Version 4 needs"},
		unknownKey:   {"InvalidClientTokenId", "UnrecognizedClientException", "The security token included in the request is invalid."},
		badToken:     {"InvalidClientTokenId", "UnrecognizedClientException", "The security token included in the request is invalid."},
		expiredToken: {"ExpiredToken", "ExpiredTokenException", "The security token included in the request is expired"},
		mismatch: {"SignatureDoesNotMatch", "InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided. " +
				"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."},
		expiredDate: {"SignatureDoesNotMatch", "InvalidSignatureException", "Signature expired: the request's date is more than 15 minutes from the time of the service"},
	}[why]
	if s.protocol == protocolQuery {
		return Errorf(words[0], "%s", words[2])
	}
	return Errorf(words[1], "%s", words[2])
}

func denyEC2(why refusal) *Error {
	switch why {
	case missingToken:
		return &Error{Code: "MissingAuthenticationToken", Message: "Request is missing Authentication Token", Status: http.StatusForbidden}
	case incomplete:
		return Errorf("IncompleteSignature", "The request's signature doesn't have what Signature Version 4 needs")
	case expiredDate:
		return Errorf("RequestExpired", "Request has expired.")
	case expiredToken:
		return Errorf("RequestExpired", "Request has expired.")
	}
	return Errorf("AuthFailure", "AWS was not able to validate the provided access credentials")
}
