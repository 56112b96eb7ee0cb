package sandbox_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/gildhq/gild/engine/sandbox"
)

// cloud are the clients of one caller.
type cloud struct {
	ec2     *ec2.Client
	ebs     *ebs.Client
	ssm     *ssm.Client
	sts     *sts.Client
	iam     *iam.Client
	kms     *kms.Client
	connect *ec2instanceconnect.Client
}

// clouds makes the clients of whoever has an access key; token is empty for a lasting one.
func clouds(t testing.TB, url, region, key, secret, token string) cloud {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := aws.Config{
		Region: region, BaseEndpoint: &url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, token),
		HTTPClient:  &http.Client{Transport: holdBody{transport}, Timeout: time.Minute},
	}
	return cloud{ec2.NewFromConfig(c), ebs.NewFromConfig(c), ssm.NewFromConfig(c), sts.NewFromConfig(c), iam.NewFromConfig(c),
		kms.NewFromConfig(c), ec2instanceconnect.NewFromConfig(c)}
}

// cloud returns the clients of the default account in the default region.
func (w *world) cloud(t testing.TB) cloud {
	t.Helper()
	return clouds(t, w.URL, sandbox.DefaultRegion, sandbox.DefaultKey, "sandbox", "")
}

const trustEC2 = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

const agentPolicy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"

// makeProfile makes an instance profile with a role of the same name.
func makeProfile(t testing.TB, c cloud, name string, policies ...string) {
	t.Helper()
	_, err := c.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trustEC2)})
	must(t, err)
	for _, p := range policies {
		_, err = c.iam.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: &p})
		must(t, err)
	}
	_, err = c.iam.CreateInstanceProfile(t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: &name})
	must(t, err)
	_, err = c.iam.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
	must(t, err)
}

// holdBody keeps the SDK from closing a body that Go's client still looks at, which can cut
// an answer from the same machine off.
type holdBody struct{ next http.RoundTripper }

func (h holdBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return h.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return h.next.RoundTrip(r)
}
