package sandbox_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

// metadata asks the metadata service of a machine.
type metadata struct {
	t testing.TB
	h http.Handler
}

func (m metadata) ask(method, path string, header ...string) (int, string) {
	r := httptest.NewRequest(method, "http://169.254.169.254"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	m.h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (m metadata) token(ttl string) string {
	status, text := m.ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", ttl)
	if status != http.StatusOK {
		m.t.Fatalf("no token: %d %s", status, text)
	}
	return text
}

func (m metadata) get(path, token string) string {
	m.t.Helper()
	status, text := m.ask("GET", path, "X-aws-ec2-metadata-token", token)
	if status != http.StatusOK {
		m.t.Errorf("GET %s: %d", path, status)
	}
	return text
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes, Now: clock})
	c := w.mine(t)
	key, err := c.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("k"), KeyType: "ed25519"})
	must(t, err)
	w.SetProfile("p", "arn:aws:iam::111122223333:instance-profile/p", "arn:aws:iam::111122223333:role/path/builder")
	i := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.KeyName = key.KeyName
		in.UserData = aws.String(base64.StdEncoding.EncodeToString([]byte("#cloud-config\n")))
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("p")}
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{HttpTokens: "required", InstanceMetadataTags: "enabled"}
		in.TagSpecifications = []types.TagSpecification{tags("instance", "Name", "x y")}
	})
	i = waitInstance(t, c, i.InstanceId, "running")
	m := metadata{t, fakes.of(i.InstanceId)[0].spec.Metadata}
	token := m.token("60")
	for path, want := range map[string]string{
		"/latest/meta-data/instance-id":                        *i.InstanceId,
		"/latest/meta-data/ami-id":                             *i.ImageId,
		"/latest/meta-data/local-ipv4":                         *i.PrivateIpAddress,
		"/latest/meta-data/public-ipv4":                        *i.PublicIpAddress,
		"/latest/meta-data/hostname":                           *i.PrivateDnsName,
		"/latest/meta-data/mac":                                *i.NetworkInterfaces[0].MacAddress,
		"/latest/meta-data/placement/region":                   "us-east-1",
		"/latest/meta-data/placement/availability-zone":        *i.Placement.AvailabilityZone,
		"/latest/meta-data/public-keys/":                       "0=k",
		"/latest/meta-data/public-keys/0/":                     "openssh-key",
		"/latest/meta-data/services/domain":                    "amazonaws.com",
		"/latest/meta-data/tags/instance/Name":                 "x y",
		"/latest/meta-data/iam/security-credentials/":          "builder",
		"/latest/meta-data/block-device-mapping/":              "ami\nroot",
		"/2021-03-23/meta-data/placement/availability-zone-id": "use1-az1",
		"/latest/user-data":                                    "#cloud-config\n",
		"/latest/":                                             "dynamic/\nmeta-data/\nuser-data",
	} {
		if got := m.get(path, token); got != want {
			t.Errorf("GET %s gives %q, want %q", path, got, want)
		}
	}
	var role struct{ AccessKeyId, SecretAccessKey, Token, Code string }
	must(t, json.Unmarshal([]byte(m.get("/latest/meta-data/iam/security-credentials/builder", token)), &role))
	if role.Code != "Success" || role.AccessKeyId == "" {
		t.Errorf("the role's credentials are %+v", role)
	}
	if secret, account, ok := w.Lookup(role.AccessKeyId); secret != role.SecretAccessKey || account != sandbox.DefaultAccount || !ok {
		t.Error("the role's credentials can't be used")
	}
	var identity struct{ InstanceID, Region, AccountID string }
	must(t, json.Unmarshal([]byte(m.get("/latest/dynamic/instance-identity/document", token)), &identity))
	if identity.InstanceID != *i.InstanceId || identity.AccountID != sandbox.DefaultAccount {
		t.Errorf("the identity document is %+v", identity)
	}
	if status, _ := m.ask("GET", "/latest/meta-data/none", "X-aws-ec2-metadata-token", token); status != http.StatusNotFound {
		t.Errorf("what isn't there gives %d", status)
	}
}

func TestMetadataTokens(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes, Now: clock})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{HttpTokens: "required"}
	})
	waitInstance(t, c, i.InstanceId, "running")
	m := metadata{t, fakes.of(i.InstanceId)[0].spec.Metadata}
	const ttl, token, at = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token", "/latest/meta-data/instance-id"
	status := func(method, path string, header ...string) int {
		code, _ := m.ask(method, path, header...)
		return code
	}
	for name, test := range map[string]struct{ got, want int }{
		"version 1":         {status("GET", at), 401},
		"made up token":     {status("GET", at, token, "x"), 401},
		"token without ttl": {status("PUT", "/latest/api/token"), 400},
		"token for a day":   {status("PUT", "/latest/api/token", ttl, "86400"), 400},
		"token by proxy":    {status("PUT", "/latest/api/token", ttl, "60", "X-Forwarded-For", "192.0.2.1"), 403},
		"token by GET":      {status("GET", "/latest/api/token", ttl, "60"), 405},
		"metadata by PUT":   {status("PUT", at, token, m.token("60")), 405},
		"with a token":      {status("GET", at, token, m.token("60")), 200},
		"unknown version":   {status("GET", "/1999-01-01/meta-data/", token, m.token("60")), 404},
	} {
		if test.got != test.want {
			t.Errorf("%s: %d, want %d", name, test.got, test.want)
		}
	}
	old := m.token("60")
	must(t, w.Advance(time.Minute))
	if got := status("GET", at, token, old); got != 401 {
		t.Errorf("a token that has ended: %d", got)
	}
	change := func(in *ec2.ModifyInstanceMetadataOptionsInput) {
		in.InstanceId = i.InstanceId
		_, err := c.ModifyInstanceMetadataOptions(ctx, in)
		must(t, err)
	}
	change(&ec2.ModifyInstanceMetadataOptionsInput{HttpTokens: "optional"})
	if got := status("GET", at); got != 200 {
		t.Errorf("version 1 where it is allowed: %d", got)
	}
	change(&ec2.ModifyInstanceMetadataOptionsInput{HttpEndpoint: "disabled"})
	if got := status("GET", at); got != 403 {
		t.Errorf("the endpoint is off: %d", got)
	}
}
