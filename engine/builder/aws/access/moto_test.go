package access_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/spec"
)

// moto starts a moto_server and returns its address; ok is false where there is none on PATH.
func moto(t *testing.T) (address string, ok bool) {
	t.Helper()
	program, err := exec.LookPath("moto_server")
	if err != nil {
		t.Log("not held against moto: there is no moto_server on PATH")
		return "", false
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-H", "127.0.0.1", "-p", port)
	cmd.Env = append(os.Environ(), "MOTO_EC2_LOAD_DEFAULT_AMIS=false", "MOTO_IAM_LOAD_MANAGED_POLICIES=true")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Errorf("moto_server: %v\n%s", err, log.String())
		}
	})
	address = "http://127.0.0.1:" + port
	for deadline := time.Now().Add(time.Minute); ; {
		res, err := http.Get(address + "/moto-api/data.json")
		if err == nil {
			if err := res.Body.Close(); err != nil {
				t.Fatal(err)
			}
			return address, true
		}
		if time.Now().After(deadline) {
			t.Fatalf("moto_server doesn't answer: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// clients are the SDK's, with one key.
func clients(address, key, secret string) func(context.Context, string) (access.Clients, error) {
	return func(_ context.Context, region string) (access.Clients, error) {
		c := aws.Config{
			Region: region, BaseEndpoint: aws.String(address), RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
		}
		return access.Clients{EC2: ec2.NewFromConfig(c), IAM: iam.NewFromConfig(c), KMS: kms.NewFromConfig(c), STS: sts.NewFromConfig(c)}, nil
	}
}

// root may do everything while moto checks nothing.
func root(t *testing.T, address string) (*ec2.Client, *iam.Client, *kms.Client) {
	t.Helper()
	c, err := clients(address, "test", "test")(t.Context(), "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	return c.EC2.(*ec2.Client), c.IAM.(*iam.Client), c.KMS.(*kms.Client)
}

// key is an access key of a user with a policy.
type key struct{ id, secret string }

// newUser makes a user who may do the actions, on everything: moto knows no resources and
// no conditions.
func newUser(t *testing.T, api *iam.Client, name string, actions []string) key {
	t.Helper()
	ctx := t.Context()
	if _, err := api.CreateUser(ctx, &iam.CreateUserInput{UserName: &name}); err != nil {
		t.Fatal(err)
	}
	doc := access.Document{Version: "2012-10-17", Statement: []access.Statement{{Sid: "All", Effect: "Allow", Action: actions, Resource: []string{"*"}}}}
	_, err := api.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("p"), PolicyDocument: aws.String(string(encode(t, doc)))})
	if err != nil {
		t.Fatal(err)
	}
	out, err := api.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return key{*out.AccessKey.AccessKeyId, *out.AccessKey.SecretAccessKey}
}

// checkAccess makes moto check signatures and policies from here on.
func checkAccess(t *testing.T, address string) {
	t.Helper()
	res, err := http.Post(address+"/moto-api/reset-auth", "text/plain", strings.NewReader("0"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("moto doesn't check access: %s", res.Status)
	}
}

// targets are the prefixes of the JSON protocol, versions those of the query protocol.
var (
	targets  = map[string]string{"ssm": "AmazonSSM", "kms": "TrentService", "ec2-instance-connect": "AWSEC2InstanceConnectService"}
	versions = map[string]string{"ec2": "2016-11-15", "iam": "2010-05-08", "sts": "2011-06-15"}
)

// bare makes a signed call of an action without parameters. Who may make it is decided
// before its parameters are looked at.
func bare(ctx context.Context, address, action string, k key) (answer string, err error) {
	service, operation, _ := strings.Cut(action, ":")
	body, kind := []byte("{}"), "application/x-amz-json-1.1"
	if v, ok := versions[service]; ok {
		body, kind = []byte(url.Values{"Action": {operation}, "Version": {v}}.Encode()), "application/x-www-form-urlencoded"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", kind)
	if prefix, ok := targets[service]; ok {
		req.Header.Set("X-Amz-Target", prefix+"."+operation)
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret}, req, hex.EncodeToString(sum[:]), service, "eu-west-1", time.Now())
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return string(text), err
}

// TestAccessOnMoto uses moto with its checks of signatures and policies on.
func TestAccessOnMoto(t *testing.T) {
	t.Parallel()
	address, ok := moto(t)
	if !ok {
		return
	}
	vm, api, _ := root(t, address)
	all, called := actions(t)
	// Two users share the actions, so that each is one's and not the other's.
	var shares [2][]string
	for i, action := range all {
		shares[i%2] = append(shares[i%2], action)
	}
	keys := [2]key{newUser(t, api, "even", shares[0]), newUser(t, api, "odd", shares[1])}
	subnets, err := vm.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	subnet, vpc := *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	p := parse(t, "denied.yaml", strings.Replace(overSSH, "spot: prefer", "subnet: "+subnet, 1))[0]
	less := slices.DeleteFunc(access.Policy(p).Actions(), func(a string) bool {
		return slices.Contains([]string{"ec2:DescribeInstanceTypes", "ec2:ImportKeyPair", "ec2:RunInstances"}, a)
	})
	ci := newUser(t, api, "ci", less)
	checkAccess(t, address)

	t.Run("actions", func(t *testing.T) { tryActions(t, address, all, called, keys) })
	t.Run("denied", func(t *testing.T) {
		cloud := access.Cloud{Region: clients(address, ci.id, ci.secret), Base: base("ami-1")}
		compare(t, filepath.Join("testdata", "moto", "denied.txt"), found(access.Check(t.Context(), cloud, p), subnet, "SUBNET", vpc, "VPC"))
	})
	t.Run("wrong", func(t *testing.T) {
		cloud := access.Cloud{Region: clients(address, ci.id, "wrong"), Base: base("ami-1")}
		compare(t, filepath.Join("testdata", "moto", "wrong.txt"), found(access.Check(t.Context(), cloud, p)))
	})
}

// actions are those of all policies of testdata, and those of them that are calls.
func actions(t *testing.T) (all, called []string) {
	t.Helper()
	for _, name := range golden {
		for _, n := range access.Needs(pipelines(t, name)...) {
			all = append(all, n.Action)
			if !n.Implied {
				called = append(called, n.Action)
			}
		}
	}
	slices.Sort(all)
	slices.Sort(called)
	return slices.Compact(all), slices.Compact(called)
}

// tryActions has moto check every action by name: its call isn't refused to who has the
// permission, and is to who hasn't.
func tryActions(t *testing.T, address string, all, called []string, keys [2]key) {
	const refusal = "is not authorized to perform"
	for _, action := range called {
		mine := slices.Index(all, action) % 2
		if answer, err := bare(t.Context(), address, action, keys[1-mine]); err != nil || !strings.Contains(answer, refusal) {
			t.Errorf("%s without the permission: %v, %.300s", action, err, answer)
		}
		answer, err := bare(t.Context(), address, action, keys[mine])
		if err != nil || strings.Contains(answer, refusal) || strings.Contains(answer, "AuthFailure") || strings.Contains(answer, "Signature") {
			t.Errorf("%s with the permission: %v, %.300s", action, err, answer)
		}
	}
	t.Logf("%d actions", len(called))
}

// found are the findings, one line each, with what is made by chance replaced.
func found(findings []access.Finding, replace ...string) string {
	r := strings.NewReplacer(replace...)
	var b strings.Builder
	for _, f := range findings {
		mark := "ok"
		switch {
		case f.Unknown:
			mark = "unknown"
		case !f.OK && f.Optional:
			mark = "warning"
		case !f.OK:
			mark = "bad"
		}
		fmt.Fprintf(&b, "%s %d:%d %s %s: %s\n", mark, f.Pos.Line, f.Pos.Column, f.Code, f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(&b, "    %s\n", f.Fix)
		}
		for _, s := range f.Statements {
			fmt.Fprintf(&b, "    + %s %q on %q\n", s.Sid, s.Action, s.Resource)
		}
	}
	return r.Replace(b.String())
}

// base is what a builder would resolve to.
func base(id string) func(context.Context, *spec.Pipeline) (builder.Base, error) {
	return func(context.Context, *spec.Pipeline) (builder.Base, error) {
		return builder.Base{ID: id, Summary: id}, nil
	}
}

func TestCheckOnMoto(t *testing.T) {
	t.Parallel()
	address, ok := moto(t)
	if !ok {
		return
	}
	vm, _, keys := root(t, address)
	key, err := keys.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	keyID := *key.KeyMetadata.KeyId
	off, err := keys.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	offID := *off.KeyMetadata.KeyId
	if _, err := keys.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &offID}); err != nil {
		t.Fatal(err)
	}
	subnets, err := vm.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	subnet, vpc := *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	image, err := vm.RegisterImage(t.Context(), &ec2.RegisterImageInput{Name: aws.String("base"), RootDeviceName: aws.String("/dev/sda1")})
	if err != nil {
		t.Fatal(err)
	}
	cloud := access.Cloud{Region: clients(address, "test", "test"), Base: base(*image.ImageId)}
	for name, aws := range map[string]string{
		"well":     "{region: eu-west-1, instance: {types: [t3.large]}}",
		"region":   "{region: eu-wset-1}",
		"types":    "{region: eu-west-1, instance: {types: [t3.mcro, t4g.small]}}",
		"one-type": "{region: eu-west-1, instance: {types: [t3.mcro, t3.large], zones: [eu-west-1a]}}",
		"subnet":   "{region: eu-west-1, instance: {types: [t3.large], subnet: subnet-0a1b2c3d4e5f60718}}",
		"vpc":      "{region: eu-west-1, instance: {types: [t3.large], vpc: vpc-0a1b2c3d4e5f60718}}",
		"no-vpc":   "{region: ap-south-1, instance: {types: [t3.large]}}",
		"groups":   "{region: eu-west-1, instance: {types: [t3.large], subnet: " + subnet + ", security-groups: [sg-0a1b2c3d4e5f60718]}}",
		"profile":  "{region: eu-west-1, instance: {types: [t3.large], profile: builder}}",
		"keys":     "{region: eu-west-1, instance: {types: [t3.large]}, volume: {kms-key: " + keyID + "}, volumes: [{device: /dev/sdf, size: 1GiB, kms-key: alias/none}, {device: /dev/sdg, size: 1GiB, kms-key: " + offID + "}]}",
		"ssh":      "{region: eu-west-1, instance: {types: [t3.large], subnet: " + subnet + "}, connect: {by: ssh}}",
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no-vpc" {
				removeVPC(t, address, "ap-south-1")
			}
			p := parse(t, name+".yaml", "gild: 1\nname: web\nrelease: 1.0.0\nbase: debian/12\nbuilders:\n  aws: "+aws+"\n")[0]
			got := found(access.Check(t.Context(), cloud, p), keyID, "KEY", offID, "OFF", subnet, "SUBNET", vpc, "VPC", *image.ImageId, "AMI")
			compare(t, filepath.Join("testdata", "moto", name+".txt"), got)
		})
	}
}

// removeVPC removes what a region's default VPC has, and it.
func removeVPC(t *testing.T, address, region string) {
	t.Helper()
	c, err := clients(address, "test", "test")(t.Context(), region)
	if err != nil {
		t.Fatal(err)
	}
	vm := c.EC2.(*ec2.Client)
	subnets, err := vm.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subnets.Subnets {
		if _, err := vm.DeleteSubnet(t.Context(), &ec2.DeleteSubnetInput{SubnetId: s.SubnetId}); err != nil {
			t.Fatal(err)
		}
	}
	gateways, err := vm.DescribeInternetGateways(t.Context(), &ec2.DescribeInternetGatewaysInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gateways.InternetGateways {
		for _, a := range g.Attachments {
			if _, err := vm.DetachInternetGateway(t.Context(), &ec2.DetachInternetGatewayInput{InternetGatewayId: g.InternetGatewayId, VpcId: a.VpcId}); err != nil {
				t.Fatal(err)
			}
		}
	}
	vpcs, err := vm.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vpcs.Vpcs {
		if _, err := vm.DeleteVpc(t.Context(), &ec2.DeleteVpcInput{VpcId: v.VpcId}); err != nil {
			t.Fatal(err)
		}
	}
}
