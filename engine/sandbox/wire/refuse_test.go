package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"
)

// unsafeRequest is a request that no SDK would send.
type unsafeRequest struct {
	service, method, path, target, body string

	key, secret, token string // empty: the right ones
	at                 time.Duration
	unsigned           bool // no Authorization at all
	payload            string
	change             func(*http.Request) // after it was signed
}

// answer is what matters of an answer.
type answer struct {
	Status int
	Code   string
	Text   string
}

func (u unsafeRequest) send(t *testing.T, h http.Handler) answer {
	t.Helper()
	method, path := u.method, u.path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = "/"
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "http://sandbox.test"+path, strings.NewReader(u.body))
	if u.target != "" {
		r.Header.Set("X-Amz-Target", u.target)
	}
	if !u.unsigned {
		u.sign(t, r)
	}
	if u.change != nil {
		u.change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{w.Code, code(string(body), w.Header()), string(body)}
}

func (u unsafeRequest) sign(t *testing.T, r *http.Request) {
	t.Helper()
	c := aws.Credentials{AccessKeyID: "sandbox", SecretAccessKey: "sandbox", SessionToken: u.token}
	if u.key != "" {
		c.AccessKeyID = u.key
	}
	if u.secret != "" {
		c.SecretAccessKey = u.secret
	}
	sum := sha256.Sum256([]byte(u.body))
	hash := hex.EncodeToString(sum[:])
	if u.payload != "" {
		hash = u.payload
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	err := v4.NewSigner().SignHTTP(t.Context(), c, r, hash, u.service, "eu-west-1", time.Now().Add(u.at))
	if err != nil {
		t.Fatal(err)
	}
}

// code finds the error code in an answer of any protocol.
func code(body string, h http.Header) string {
	if c := h.Get("X-Amzn-Errortype"); c != "" {
		return c
	}
	_, rest, _ := strings.Cut(body, "<Code>")
	c, _, _ := strings.Cut(rest, "</Code>")
	return c
}

const ec2Version = "&Version=2016-11-15"

func testHandler(f *fakeService) http.Handler {
	return NewHandler(f, fakeKeys{expires: time.Now().Add(time.Hour)}, slog.New(slog.DiscardHandler))
}

func TestRefuseCaller(t *testing.T) {
	t.Parallel()
	kinds := map[string]unsafeRequest{
		"ec2": {service: "ec2", body: "Action=DescribeRegions" + ec2Version},
		"sts": {service: "sts", body: "Action=GetCallerIdentity&Version=2011-06-15"},
		"ssm": {service: "ssm", target: "AmazonSSM.DescribeInstanceInformation", body: "{}"},
		"ebs": {service: "ebs", method: http.MethodGet, path: "/snapshots/snap-0123456789abcdef0/blocks"},
	}
	changes := map[string]func(*unsafeRequest){
		"right":        func(*unsafeRequest) {},
		"no signature": func(u *unsafeRequest) { u.unsigned = true },
		"garbage":      func(u *unsafeRequest) { u.change = authorization("AWS4-HMAC-SHA256 Credential=x") },
		"other scheme": func(u *unsafeRequest) { u.change = authorization("Basic eDp5") },
		"unknown key":  func(u *unsafeRequest) { u.key = "AKIANOBODY" },
		"wrong secret": func(u *unsafeRequest) { u.secret = "guess" },
		"changed body": func(u *unsafeRequest) {
			u.change = func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) }
		},
		"unsigned body":  func(u *unsafeRequest) { u.payload = unsignedPayload },
		"changed query":  func(u *unsafeRequest) { u.change = func(r *http.Request) { r.URL.RawQuery = "a=b" } },
		"changed region": func(u *unsafeRequest) { u.change = replaceAuthorization("eu-west-1", "us-east-1") },
		"early":          func(u *unsafeRequest) { u.at = -16 * time.Minute },
		"late":           func(u *unsafeRequest) { u.at = 16 * time.Minute },
		"just in time":   func(u *unsafeRequest) { u.at = -14 * time.Minute },
		"token too many": func(u *unsafeRequest) { u.token = "x" },
		"temporary":      func(u *unsafeRequest) { u.key, u.token = "ASIATEMPORARY", "the-token" },
		"no token":       func(u *unsafeRequest) { u.key = "ASIATEMPORARY" },
		"wrong token":    func(u *unsafeRequest) { u.key, u.token = "ASIATEMPORARY", "other" },
	}
	want := map[string]map[string]string{
		"ec2": {"no signature": "403 MissingAuthenticationToken", "garbage": "400 IncompleteSignature", "early": "400 RequestExpired", "unknown key": "401 AuthFailure", "wrong secret": "401 AuthFailure", "no token": "401 AuthFailure"},
		"sts": {"no signature": "403 MissingAuthenticationToken", "garbage": "400 IncompleteSignature", "early": "403 SignatureDoesNotMatch", "unknown key": "403 InvalidClientTokenId", "wrong secret": "403 SignatureDoesNotMatch", "no token": "403 InvalidClientTokenId"},
		"ssm": {"no signature": "400 MissingAuthenticationTokenException", "garbage": "400 IncompleteSignatureException", "early": "400 InvalidSignatureException", "unknown key": "400 UnrecognizedClientException", "wrong secret": "400 InvalidSignatureException", "no token": "400 UnrecognizedClientException"},
		"ebs": {"no signature": "403 MissingAuthenticationTokenException", "garbage": "400 IncompleteSignatureException", "early": "403 InvalidSignatureException", "unknown key": "403 UnrecognizedClientException", "wrong secret": "403 InvalidSignatureException", "no token": "403 UnrecognizedClientException"},
	}
	like := map[string]string{
		"other scheme": "garbage", "changed body": "wrong secret", "unsigned body": "wrong secret", "changed query": "wrong secret",
		"changed region": "wrong secret", "late": "early", "token too many": "no token", "wrong token": "no token",
	}
	for kind, base := range kinds {
		for name, change := range changes {
			u := base
			change(&u)
			expected := "200 "
			switch refused, alike := like[name]; {
			case alike:
				expected = want[kind][refused]
			case want[kind][name] != "":
				expected = want[kind][name]
			}
			f := &fakeService{}
			got := u.send(t, testHandler(f))
			if said := fmt.Sprintf("%d %s", got.Status, got.Code); said != expected {
				t.Errorf("%s, %s: got %s, want %s\n%s", kind, name, said, expected, got.Text)
			}
			if asked := len(f.asked) > 0; asked != (expected == "200 ") {
				t.Errorf("%s, %s: the handler was asked: %v", kind, name, asked)
			}
		}
	}
}

func authorization(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", text) }
}

func replaceAuthorization(from, to string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
	}
}

func TestRefuseRequest(t *testing.T) {
	t.Parallel()
	ec2 := func(rest string) unsafeRequest { return unsafeRequest{service: "ec2", body: rest + ec2Version} }
	iam := func(rest string) unsafeRequest {
		return unsafeRequest{service: "iam", body: rest + "&Version=2010-05-08"}
	}
	ssm := func(action, body string) unsafeRequest {
		return unsafeRequest{service: "ssm", target: "AmazonSSM." + action, body: body}
	}
	ebs := func(path string) unsafeRequest {
		return unsafeRequest{service: "ebs", method: http.MethodGet, path: path}
	}
	snapshot := "/snapshots/snap-0123456789abcdef0/blocks"
	tests := []struct {
		name string
		u    unsafeRequest
		want string
		text string
	}{
		{"other service", unsafeRequest{service: "s3"}, "400 InvalidAction", `no service &#34;s3&#34;`},
		{"no action", ec2("X=1"), "400 MissingAction", ""},
		{"other action", ec2("Action=CreateVpc"), "400 InvalidAction", "The action CreateVpc is not valid for this web service"},
		{"no version", unsafeRequest{service: "ec2", body: "Action=DescribeRegions"}, "400 NoSuchVersion", ""},
		{"missing", ec2("Action=CreateImage&Name=x"), "400 MissingParameter", "The request must contain the parameter InstanceId"},
		{"missing inside", ec2("Action=CopyImage&Name=x&SourceRegion=eu-west-1&Tag=1"), "400 UnknownParameter", "The parameter Tag is not recognized"},
		{"unknown", ec2("Action=DescribeRegions&Foo.1.Bar=x"), "400 UnknownParameter", "Foo.1.Bar"},
		{"unknown inside", ec2("Action=DescribeImages&Filter.1.Names=x"), "400 UnknownParameter", "Filter.1.Names"},
		{"no index", ec2("Action=DescribeImages&ImageId.x=ami"), "400 UnknownParameter", "ImageId.x"},
		{"below a leaf", ec2("Action=DescribeImages&MaxResults.1=5"), "400 UnknownParameter", "MaxResults.1"},
		{"no number", ec2("Action=DescribeImages&MaxResults=many"), "400 InvalidParameterValue", "Value (many) for parameter MaxResults is invalid"},
		{"too large", ec2("Action=DescribeImages&MaxResults=3000000000"), "400 InvalidParameterValue", "MaxResults"},
		{"no boolean", ec2("Action=DescribeImages&DryRun=yes"), "400 InvalidParameterValue", "DryRun"},
		{"out of an enum", ec2("Action=RunInstances&MinCount=1&MaxCount=1&InstanceType=x9.huge"), "400 InvalidParameterValue", "Value (x9.huge) for parameter InstanceType"},
		{"twice", ec2("Action=DescribeImages&DryRun=true&DryRun=true"), "400 InvalidParameterValue", "more than once"},
		{"deep", ec2("Action=DescribeImages&" + strings.Repeat("a.", 40) + "b=1"), "400 UnknownParameter", ""},
		{"many", ec2("Action=DescribeImages" + manyKeys()), "400 InvalidParameterValue", "more parameters than"},
		{"no form", ec2("Action=DescribeImages&Name=%zz"), "400 InvalidParameterValue", ""},
		{"large", ec2("Action=DescribeImages&" + strings.Repeat("x", MaxBody)), "413 RequestEntityTooLarge", ""},
		{"iam missing", iam("Action=CreateRole&RoleName=x"), "400 ValidationError", "Value null at &#39;assumeRolePolicyDocument&#39; failed to satisfy constraint: Member must not be null"},
		{"iam pattern", iam("Action=GetRole&RoleName=a/b"), "400 ValidationError", "must satisfy regular expression pattern"},
		{"iam two", iam("Action=GetRole&RoleName=" + strings.Repeat("/", 65)), "400 ValidationError", "2 validation errors detected"},
		{"iam list", iam("Action=TagRole&RoleName=a&Tags.1.Key=x"), "400 ValidationError", ""},
		{"ssm operation", ssm("CreateDocument", "{}"), "400 UnknownOperationException", ""},
		{"ssm missing", ssm("GetParameter", "{}"), "400 ValidationException", "Value null at 'name' failed"},
		{"ssm type", ssm("GetParameter", `{"Name": 5}`), "400 SerializationException", "NUMBER_VALUE can not be converted to String"},
		{"ssm item type", ssm("GetParameters", `{"Names": ["a", {}]}`), "400 SerializationException", "START_OBJECT can not be converted to String"},
		{"ssm structure", ssm("GetParameters", `{"Names": "a"}`), "400 SerializationException", "STRING_VALUE can not be converted to List"},
		{"ssm no JSON", ssm("GetParameter", `{"Name": "x"`), "400 SerializationException", ""},
		{"ssm two values", ssm("GetParameter", `{"Name": "x"} {}`), "400 SerializationException", ""},
		{"ssm enum", ssm("PutParameter", `{"Name": "x", "Value": "y", "Type": "Number"}`), "400 ValidationException", "enum value set"},
		{"ssm empty text", ssm("PutParameter", `{"Name": "x", "Value": ""}`), "200 ", ""},
		{"ssm unknown", ssm("GetParameter", `{"Name": "x", "Colour": "red"}`), "200 ", ""},
		{"ebs path", ebs("/snapshots/x/y/z/w"), "404 UnknownOperationException", ""},
		{"ebs id", ebs("/snapshots/vol-1/blocks"), "400 ValidationException", "INVALID_PARAMETER_VALUE"},
		{"ebs range", ebs(snapshot + "?maxResults=5"), "400 ValidationException", "greater than or equal to 100"},
		{"ebs number", ebs(snapshot + "?startingBlockIndex=x"), "400 ValidationException", "startingBlockIndex"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fakeService{answer: map[string]any{}}
			if strings.HasPrefix(test.name, "ssm empty") {
				f.answer = map[string]any{"Version": 1}
			}
			got := test.u.send(t, testHandler(f))
			if said := fmt.Sprintf("%d %s", got.Status, got.Code); said != test.want || !strings.Contains(got.Text, test.text) {
				t.Errorf("got %s, want %s with %q:\n%s", said, test.want, test.text, got.Text)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	ec2 := unsafeRequest{service: "ec2", body: "Action=DescribeRegions" + ec2Version}
	iam := unsafeRequest{service: "iam", body: "Action=GetRole&RoleName=x&Version=2010-05-08"}
	ssm := unsafeRequest{service: "ssm", target: "AmazonSSM.GetParameter", body: `{"Name": "x"}`}
	kms := unsafeRequest{service: "kms", target: "TrentService.DescribeKey", body: `{"KeyId": "x"}`}
	ebs := unsafeRequest{service: "ebs", method: http.MethodGet, path: "/snapshots/snap-0123456789abcdef0/blocks"}
	tests := []struct {
		name string
		u    unsafeRequest
		err  error
		want answer // Text is a part of it
	}{
		{"ec2", ec2, Errorf("InvalidX", "a < %d", 1), answer{400, "InvalidX", "<Message>a &lt; 1</Message>"}},
		{"ec2 usual status", ec2, Errorf("DryRunOperation", "would"), answer{412, "DryRunOperation", "would"}},
		{"ec2 own status", ec2, &Error{Code: "InvalidX", Status: 409}, answer{409, "InvalidX", "<Response><Errors><Error>"}},
		{"ec2 internal", ec2, errors.New("the disk is full"), answer{500, "InternalError", "An internal error has occurred"}},
		{"wrapped", ec2, fmt.Errorf("run: %w", Errorf("InvalidX", "m")), answer{400, "InvalidX", ""}},
		{"iam by exception", iam, Errorf("NoSuchEntityException", "no"), answer{404, "NoSuchEntity", "<Type>Sender</Type>"}},
		{"iam by code", iam, Errorf("NoSuchEntity", "no"), answer{404, "NoSuchEntity", "<Message>no</Message>"}},
		{"iam internal", iam, errors.New("x"), answer{500, "InternalFailure", "<Type>Receiver</Type>"}},
		{"ssm", ssm, Errorf("ParameterNotFound", ""), answer{400, "ParameterNotFound", `"__type":"ParameterNotFound"`}},
		{"ssm fault", ssm, Errorf("InternalServerError", "x"), answer{500, "InternalServerError", `"Message":"x"`}},
		{"kms", kms, Errorf("NotFoundException", "no key"), answer{400, "NotFoundException", `"message":"no key"`}},
		{"kms internal", kms, errors.New("x"), answer{500, "KMSInternalException", ""}},
		{"ebs detail", ebs, &Error{Code: "ResourceNotFoundException", Message: "no", Detail: map[string]any{"Reason": "SNAPSHOT_NOT_FOUND"}}, answer{404, "ResourceNotFoundException", `"Reason":"SNAPSHOT_NOT_FOUND"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := test.u.send(t, testHandler(&fakeService{err: test.err}))
			if got.Status != test.want.Status || got.Code != test.want.Code || !strings.Contains(got.Text, test.want.Text) {
				t.Errorf("got %d %s, want %d %s with %q:\n%s", got.Status, got.Code, test.want.Status, test.want.Code, test.want.Text, got.Text)
			}
			if strings.Contains(got.Text, "disk is full") {
				t.Error("the client learned what broke inside")
			}
		})
	}
}

// TestHandlerMistakes shows that a wrong answer never reaches a client, and is logged.
func TestHandlerMistakes(t *testing.T) {
	t.Parallel()
	u := unsafeRequest{service: "ec2", body: "Action=DescribeImages" + ec2Version}
	image := func(name string, v any) map[string]any {
		return map[string]any{"Images": []map[string]any{{name: v}}}
	}
	var none *string
	tests := []struct {
		name   string
		answer map[string]any
		log    string // empty: the answer is right
	}{
		{"nothing", nil, ""},
		{"nil pointer", image("Name", none), ""},
		{"named string", image("State", kindOf("x")), "none of the values of ImageState"},
		{"unknown member", image("Colour", "red"), `no member \"Colour\"`},
		{"number for text", image("Name", 5), "int is no string"},
		{"text for number", map[string]any{"Images": "x"}, "string is no list"},
		{"text for boolean", image("EnaSupport", "true"), "string is no boolean"},
		{"map for list", map[string]any{"Images": map[string]any{}}, "is no list"},
		{"list for structure", image("StateReason", []any{}), "wanted for structure"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			h := NewHandler(&fakeService{answer: test.answer}, fakeKeys{}, slog.New(slog.NewTextHandler(&log, nil)))
			got := u.send(t, h)
			want := answer{Status: 200}
			if test.log != "" {
				want = answer{Status: 500, Code: "InternalError"}
			}
			got.Text = ""
			if got != want || !strings.Contains(log.String(), test.log) {
				t.Errorf("got %+v and the log %q, want %+v and %q", got, log.String(), want, test.log)
			}
		})
	}
	iam := unsafeRequest{service: "iam", body: "Action=GetRole&RoleName=x&Version=2010-05-08"}
	if got := iam.send(t, testHandler(&fakeService{answer: map[string]any{"Role": map[string]any{"RoleName": "x"}}})); got.Status != 500 {
		t.Errorf("a missing required member: %+v", got)
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	all, err := Operations()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for name, ops := range all {
		count[name] = len(ops)
	}
	want := map[string]int{"ec2": 73, "ssm": 13, "ebs": 6, "sts": 3, "iam": 22, "kms": 5, "ec2-instance-connect": 1}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

func manyKeys() string {
	var b strings.Builder
	for i := range maxKeys + 1 {
		fmt.Fprintf(&b, "&ImageId.%d=x", i)
	}
	return b.String()
}
