package wire

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzForm reads forms of the query protocols. What is accepted must be values of the
// model, which is shown by making an answer's plain values of them.
func FuzzForm(f *testing.F) {
	for _, seed := range []string{
		"Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1&TagSpecification.1.Tag.1.Key=a&BlockDeviceMapping.2.Ebs.VolumeSize=8",
		"Action=DescribeImages&Version=2016-11-15&Filter.1.Name=name&Filter.1.Value.1=a*&Owner.1=self",
		"Action=ImportKeyPair&Version=2016-11-15&KeyName=a&PublicKeyMaterial=QQ%3D%3D",
		"Action=TagRole&Version=2010-05-08&RoleName=a&Tags.member.1.Key=k&Tags.member.1.Value=v",
		"Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::111122223333:role/a&RoleSessionName=s&PolicyArns.member.1.arn=x",
		"Action=DescribeImages&ImageId.1.2.3=x&ImageId=&=&.=..&%=1",
	} {
		f.Add(seed)
	}
	services, err := load()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, name := range []string{"ec2", "iam", "sts"} {
			s := services[name]
			r := &http.Request{Method: http.MethodPost, Header: http.Header{}, URL: &url.URL{Path: "/"}}
			op, form, fault := s.operation(r, nil, []byte(body))
			if fault != nil {
				continue
			}
			params, problems := s.params(op, nil, form, r, []byte(body))
			checkRead(t, s, op, params, problems)
		}
	})
}

// FuzzJSON does the same for the JSON services.
func FuzzJSON(f *testing.F) {
	f.Add("SendCommand", `{"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789abcdef0"], "Parameters": {"commands": ["id"]}}`)
	f.Add("PutParameter", `{"Name": "/a", "Value": "b", "Type": "String", "Tags": [{"Key": "k", "Value": null}]}`)
	f.Add("ListCommandInvocations", `{"Details": 1e999, "MaxResults": 1.5}`)
	services, err := load()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, action, body string) {
		s := services["ssm"]
		r := &http.Request{Method: http.MethodPost, Header: http.Header{"X-Amz-Target": {"AmazonSSM." + action}}, URL: &url.URL{Path: "/"}}
		op, _, fault := s.operation(r, nil, []byte(body))
		if fault != nil {
			return
		}
		params, problems := s.params(op, nil, nil, r, []byte(body))
		checkRead(t, s, op, params, problems)
	})
}

func checkRead(t *testing.T, s *service, op *operation, params map[string]any, problems []problem) {
	t.Helper()
	if len(problems) > 0 {
		if e := refuse(s, problems); e.Code == "" || e.Message == "" {
			t.Errorf("refused without a word: %+v", problems)
		}
		return
	}
	if op.input == nil {
		return
	}
	if _, err := conform(op.input, params, op.name); err != nil {
		t.Errorf("accepted what the model doesn't allow: %v", err)
	}
	if _, err := json.Marshal(params); err != nil {
		t.Errorf("accepted what can't be written: %v", err)
	}
}

// FuzzSignature sends whatever stands in the header: nothing but the right signature is let in.
func FuzzSignature(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=sandbox/20261123/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20261123T080000Z", "/?a=%2f&b&a=")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=, Signature=", "", "/snapshots//blocks/%")
	h := NewHandler(&fakeService{}, fakeKeys{expires: time.Now()}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, header, date, target string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("Action=DescribeRegions"+ec2Version))
		r.Header.Set("Authorization", header)
		r.Header.Set("X-Amz-Date", date)
		path, query, _ := strings.Cut(target, "?")
		r.URL.Path, r.URL.RawQuery = path, query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 400 {
			t.Errorf("let in with status %d", w.Code)
		}
	})
}
