package sandbox_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

// FuzzPolicy reads policy documents. What is read judges without a fault, and a Deny of
// everything beats it, whatever it says.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}`,
		`{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "NotAction": ["iam:*"], "NotResource": "arn:aws:ec2:*::image/*"}}`,
		`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "a${aws:PrincipalAccount}${*}${x, 'y'}${",
		  "Condition": {"ForAllValues:StringLikeIfExists": {"aws:TagKeys": ["a*", 1, true, null]}, "Null": {"ec2:Owner": "true"}, "NumericLessThan": {"ec2:VolumeSize": 8},
		  "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Bool": {"aws:SecureTransport": false}}}}`,
		`{"Statement": [null, {}, {"Effect": "Allow"}]}`,
		`{"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com", "AWS": ["*"]}, "Action": "sts:AssumeRole", "Condition": {"StringNotEquals": {"sts:ExternalId": "a"}}}]}`,
	} {
		f.Add(seed, "ec2:RunInstances", "arn:aws:ec2:us-east-1::image/ami-1", "aws:PrincipalAccount", "111122223333")
	}
	const denyAll = `{"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}`
	f.Fuzz(func(t *testing.T, document, action, resource, key, value string) {
		sandbox.Trusts(document, "arn:aws:iam::111122223333:user/sandbox", "111122223333")
		keys := map[string][]string{key: {value}}
		if _, err := sandbox.Judged(action, resource, keys, document); err != nil {
			return
		}
		if got, err := sandbox.Judged(action, resource, keys, document, denyAll); got != "explicit deny" || err != nil {
			t.Errorf("against a Deny of everything: %s, %v", got, err)
		}
	})
}

// FuzzCalls makes calls of the query services, signed and with whatever parameters: filters,
// tags, mappings, rules, keys, policies, page tokens. Names in braces stand for the ids of
// what is there. None ends in a fault of the sandbox's
// own, and every answer is XML.
func FuzzCalls(f *testing.F) {
	for _, seed := range []string{
		"Action=DescribeImages&Filter.1.Name=name&Filter.1.Value.1=a*&Owner.1=self&MaxResults=5&NextToken=x",
		"Action=DescribeInstances&Filter.1.Name=tag:a&Filter.1.Value.1=%5C*&InstanceId.1={instance}",
		"Action=DescribeSpotPriceHistory&StartTime=2026-11-23T00:00:00Z&InstanceType.1=t3.micro&AvailabilityZone=us-east-1a",
		"Action=RunInstances&ImageId={image}&MinCount=1&MaxCount=1&UserData=QQ%3D%3D&BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.Ebs.VolumeSize=8" +
			"&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId={subnet}&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a",
		"Action=RegisterImage&Name=a&RootDeviceName=/dev/xvda&BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}",
		"Action=CreateVolume&AvailabilityZone=us-east-1a&Size=1&VolumeType=gp3&Iops=3000&Throughput=125&ClientToken=a",
		"Action=ImportKeyPair&KeyName=a&PublicKeyMaterial=c3NoLWVkMjU1MTkgQUFBQQ==",
		"Action=AuthorizeSecurityGroupIngress&GroupName=default&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=22&IpPermissions.1.ToPort=22&IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0/8",
		"Action=CreateTags&ResourceId.1={vpc}&ResourceId.2={instance}&Tag.1.Key=a&Tag.1.Value=b",
		"Action=EnableImageDeprecation&ImageId={image}&DeprecateAt=2030-01-01T00:00:00Z",
		"Action=ModifyImageAttribute&ImageId={image}&LaunchPermission.Add.1.UserId=1&LaunchPermission.Remove.1.Group=all",
		"Action=CreateRole&RoleName=a&AssumeRolePolicyDocument=%7B%22Statement%22%3A%5B%5D%7D&Tags.member.1.Key=k&Tags.member.1.Value=v",
		"Action=SimulatePrincipalPolicy&PolicySourceArn=arn:aws:iam::111122223333:role/a&ActionNames.member.1=ec2:RunInstances&PolicyInputList.member.1=%7B%7D",
		"Action=AssumeRole&RoleArn=arn:aws:iam::111122223333:role/a&RoleSessionName=s&DurationSeconds=900",
		"Action=DecodeAuthorizationMessage&EncodedMessage=Z2lsZA",
		"Action=CreateImage&InstanceId={instance}&Name=abc&NoReboot=true&BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.NoDevice=",
		"Action=ModifyInstanceAttribute&InstanceId={instance}&Attribute=userData&Value=QQ%3D%3D",
		"Action=CopyImage&SourceImageId={image}&SourceRegion=us-east-1&Name=abc&Encrypted=true&KmsKeyId=alias/aws/ebs",
		"Action=ModifySnapshotAttribute&SnapshotId={snapshot}&CreateVolumePermission.Add.1.UserId=444455556666",
		"Action=CreateSnapshots&InstanceSpecification.InstanceId={instance}&InstanceSpecification.ExcludeBootVolume=true&CopyTagsFromSource=volume",
		"Action=AttachVolume&VolumeId={volume}&InstanceId={instance}&Device=/dev/sdf",
		"Action=PutRolePolicy&RoleName=a&PolicyName=b&PolicyDocument=%7B%22Statement%22%3A%5B%5D%7D",
	} {
		f.Add(seed)
	}
	w := open(f, sandbox.Config{Log: slog.New(slog.DiscardHandler)})
	h, ids := w.Handler(), idsOf(f, w)
	f.Fuzz(func(t *testing.T, form string) {
		for service, version := range map[string]string{"ec2": "2016-11-15", "iam": "2010-05-08", "sts": "2011-06-15"} {
			r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(ids.Replace(form)+"&Version="+version))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			checkAnswer(t, h, r, service)
		}
	})
}

// idsOf puts ids in the places of names in braces.
func idsOf(f *testing.F, w *world) *strings.Replacer {
	c, image := w.mine(f), w.seed(f, "base")
	i := waitInstance(f, c, run(f, c, image).InstanceId, "running")
	volume := i.BlockDeviceMappings[0].Ebs.VolumeId
	sn, err := c.CreateSnapshot(f.Context(), &ec2.CreateSnapshotInput{VolumeId: volume})
	must(f, err)
	return strings.NewReplacer("{image}", image, "{instance}", *i.InstanceId, "{volume}", *volume, "{snapshot}", *sn.SnapshotId, "{subnet}", *i.SubnetId, "{vpc}", *i.VpcId)
}

// FuzzJSONCalls does the same for the JSON services.
func FuzzJSONCalls(f *testing.F) {
	for target, body := range map[string]string{
		"AmazonSSM.PutParameter":                `{"Name": "/a/b", "Value": "b", "Type": "String", "DataType": "aws:ec2:image", "AllowedPattern": "a*"}`,
		"AmazonSSM.GetParameter":                `{"Name": "arn:aws:ssm:us-east-1:111122223333:parameter/a/b:1"}`,
		"AmazonSSM.GetParametersByPath":         `{"Path": "/", "Recursive": true, "NextToken": "x"}`,
		"AmazonSSM.SendCommand":                 `{"DocumentName": "AWS-RunShellScript", "Targets": [{"Key": "tag:a", "Values": ["b"]}], "Parameters": {"commands": ["id"], "executionTimeout": ["60"]}}`,
		"AmazonSSM.ListCommandInvocations":      `{"Filters": [{"key": "Status", "value": "Success"}], "Details": true}`,
		"AmazonSSM.DescribeInstanceInformation": `{"Filters": [{"Key": "InstanceIds", "Values": ["i-0123456789abcdef0"]}], "MaxResults": 5}`,
		"AmazonSSM.LabelParameterVersion":       `{"Name": "/a/b", "Labels": ["x"], "ParameterVersion": 1}`,
		"TrentService.CreateAlias":              `{"AliasName": "alias/a", "TargetKeyId": "b"}`,
		"TrentService.CreateGrant":              `{"KeyId": "alias/aws/ebs", "GranteePrincipal": "a", "Operations": ["Decrypt"]}`,
	} {
		f.Add(target, body)
	}
	w := open(f, sandbox.Config{Log: slog.New(slog.DiscardHandler)})
	h := w.Handler()
	f.Fuzz(func(t *testing.T, target, body string) {
		service := "ssm"
		if strings.HasPrefix(target, "Trent") {
			service = "kms"
		}
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", target)
		checkAnswer(t, h, r, service)
	})
}

// checkAnswer sends a request, signed for a service, and reads the answer.
func checkAnswer(t *testing.T, h http.Handler, r *http.Request, service string) *httptest.ResponseRecorder {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	must(t, err)
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	keys := aws.Credentials{AccessKeyID: sandbox.DefaultKey, SecretAccessKey: sandbox.DefaultKey}
	must(t, v4.NewSigner().SignHTTP(t.Context(), keys, r, hex.EncodeToString(sum[:]), service, sandbox.DefaultRegion, time.Now()))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code >= http.StatusInternalServerError {
		t.Errorf("%s %q: %d %s", service, body, rec.Code, rec.Body)
	}
	if err := readable(bytes.NewReader(rec.Body.Bytes()), service); err != nil {
		t.Errorf("%s %q: the answer can't be read: %v", service, body, err)
	}
	return rec
}

func readable(body io.Reader, service string) error {
	if service == "ssm" || service == "kms" {
		var v any
		return json.NewDecoder(body).Decode(&v)
	}
	for dec := xml.NewDecoder(body); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// FuzzMetadata asks an instance's metadata service. Without a token that it gave out nothing
// is told, and nothing ends in a fault.
func FuzzMetadata(f *testing.F) {
	for _, path := range []string{"/latest/meta-data/", "/latest/meta-data/public-keys/0/openssh-key", "/latest/dynamic/instance-identity/document", "/latest/user-data",
		"/latest/meta-data/block-device-mapping/ami", "/latest/meta-data/managed-ssh-keys/active-keys/admin", "//", "/1.0/meta-data/iam/security-credentials/../x"} {
		f.Add(http.MethodGet, path, "", "60")
	}
	f.Add(http.MethodPut, "/latest/api/token", "x", "-1")
	fakes := &fakeMachines{}
	w := open(f, sandbox.Config{Machines: fakes, Log: slog.New(slog.DiscardHandler)})
	c := w.mine(f)
	i := run(f, c, w.seed(f, "base"), func(in *ec2.RunInstancesInput) {
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{HttpTokens: "required"}
	})
	waitInstance(f, c, i.InstanceId, "running")
	h := fakes.of(i.InstanceId)[0].spec.Metadata
	given := metadata{f, h}.token("21600")
	f.Fuzz(func(t *testing.T, method, path, token, ttl string) {
		for _, token := range []string{token, given} {
			r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254/", nil)
			r.Method, r.URL.Path = method, path
			r.Header.Set("X-aws-ec2-metadata-token", token)
			r.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", ttl)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code >= http.StatusInternalServerError {
				t.Errorf("%s %q: %d", method, path, rec.Code)
			}
			if rec.Code == http.StatusOK && token != given && path != "/latest/api/token" {
				t.Errorf("%s %q with the token %q: %s", method, path, token, rec.Body)
			}
		}
	})
}

// FuzzControl sends bodies to the control endpoint: what is wrong is told, and the sandbox
// goes on.
func FuzzControl(f *testing.F) {
	f.Add("faults", `{"list": [{"action": "Describe*", "kind": "slow", "nth": 1}], "lag": 2, "throttle": 0.1}`)
	f.Add("clock", `{"advance": "90s"}`)
	f.Add("policy", `{"accessKey": "a", "document": {"Statement": []}}`)
	w := open(f, sandbox.Config{Log: slog.New(slog.DiscardHandler)})
	h := w.Handler()
	f.Fuzz(func(t *testing.T, what, body string) {
		if what != "faults" && what != "clock" && what != "policy" {
			return
		}
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:4566/_gild/"+what, strings.NewReader(body))
		r.RemoteAddr = "127.0.0.1:1234"
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		var said struct{ Error string }
		if err := json.Unmarshal(rec.Body.Bytes(), &said); err != nil || rec.Code != http.StatusOK && said.Error == "" {
			t.Errorf("%s %q: %d %s", what, body, rec.Code, rec.Body)
		}
	})
}
