package aws

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/spec"
)

func base64Text(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// offer is one way to get an instance.
type offer struct {
	kind   string
	subnet types.Subnet
	spot   bool
}

// String says where and what, for people.
func (o offer) String() string {
	s := o.kind + " in " + zone(o.subnet)
	if o.spot {
		s += " (spot)"
	}
	return s
}

// offers lists the ways to get an instance, in the order in which to try them: a better type
// in any zone before a lesser one, and spot before all that costs more.
func offers(in spec.AWSInstance, subnets []types.Subnet, onDemand bool) []offer {
	var all []offer
	for _, spot := range []bool{true, false} {
		if spot && (in.Spot == "never" || in.Spot == "" || onDemand && in.Spot == "prefer") || !spot && in.Spot == "only" {
			continue
		}
		for _, t := range in.Types {
			for _, s := range subnets {
				all = append(all, offer{t, s, spot})
			}
		}
	}
	return all
}

// elsewhere are the codes that another zone, type or way to pay may not have.
var elsewhere = []string{
	"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "InsufficientCapacity", "Unsupported",
	"MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet", "VcpuLimitExceeded", "InstanceLimitExceeded",
	"UnfulfillableCapacity", "InsufficientAddressCapacity",
}

// run launches the instance, trying one offer after the other.
func (in *instance) run(ctx context.Context, run *ec2.RunInstancesInput, subnets []types.Subnet, onDemand bool) error {
	refused := map[string][]string{} // offers by the code that refused them
	var last error
	for _, o := range offers(in.p.AWS.Instance, subnets, onDemand) {
		say(in.log, "launching %s from %s", o, aws.ToString(run.ImageId))
		err := in.take(ctx, *run, o)
		if err == nil {
			in.spot = o.spot
			say(in.log, "launched %s", in.id)
			return nil
		}
		var e *client.Error
		if !errors.As(err, &e) || !slices.Contains(elsewhere, e.Code) {
			return fmt.Errorf("launch %s: %w", o, err)
		}
		say(in.log, "no %s: %s", o, e.Code)
		refused[e.Code], last = append(refused[e.Code], o.String()), err
	}
	var why []string
	for _, code := range sortedKeys(refused) {
		why = append(why, code+" for "+strings.Join(refused[code], ", "))
	}
	return fmt.Errorf("no instance is to be had: %s; allow more types, zones or spot: prefer; the last answer: %w", strings.Join(why, "; "), last)
}

// maxReplays bounds how often a spent idempotency token is replaced.
const maxReplays = 10

// take launches one offer. Its idempotency token is the same in every attempt and process,
// unless EC2 says that what it stood for is gone, or that it was asked for something else.
func (in *instance) take(ctx context.Context, run ec2.RunInstancesInput, o offer) error {
	run.InstanceType, run.SubnetId = types.InstanceType(o.kind), o.subnet.SubnetId
	run.TagSpecifications = in.tagged(types.ResourceTypeInstance, types.ResourceTypeVolume, types.ResourceTypeNetworkInterface)
	if in.kind == kindTest || o.spot {
		// A guest that powers itself off has done its work.
		run.InstanceInitiatedShutdownBehavior = types.ShutdownBehaviorTerminate
	}
	if o.spot {
		run.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{
			SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
		}}
		run.TagSpecifications = append(run.TagSpecifications, in.tagged(types.ResourceTypeSpotInstancesRequest)...)
	}
	if in.needsPublic(o.subnet) {
		run.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex: aws.Int32(0), SubnetId: run.SubnetId, Groups: run.SecurityGroupIds,
			AssociatePublicIpAddress: aws.Bool(true), DeleteOnTermination: aws.Bool(true),
		}}
		run.SubnetId, run.SecurityGroupIds = nil, nil
	}
	ctx = client.Tolerate(ctx, client.Passing{Code: "InvalidParameterValue", Text: "IAM Instance Profile"}, client.Passing{Code: "InvalidGroup.NotFound"},
		client.Passing{Code: "InvalidKeyPair.NotFound"})
	for n := range maxReplays {
		run.ClientToken = aws.String(digest(in.token, o.String(), fmt.Sprint(n)))
		out, err := client.Call(ctx, in.region.EC2.RunInstances, &run)
		if client.HasCode(err, "IdempotentInstanceTerminated", "IdempotentParameterMismatch") {
			// An attempt that died had this token. Nothing of it may live on beside this one.
			if err := in.region.terminate(ctx, in.token); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		in.id = aws.ToString(out.Instances[0].InstanceId)
		return nil
	}
	return fmt.Errorf("EC2 has seen all of %d idempotency tokens of this launch; start a new run", maxReplays)
}

// needsPublic tells whether a public address must be asked for.
func (in *instance) needsPublic(s types.Subnet) bool {
	c := in.p.AWS.Connect
	return c.By != "ssm" && !c.Private && !aws.ToBool(s.MapPublicIpOnLaunch)
}

const gib = 1 << 30

// mappings says what volumes the instance gets. All end with it.
func (in *instance) mappings() ([]types.BlockDeviceMapping, error) {
	root := aws.ToString(in.image.RootDeviceName)
	var all []types.BlockDeviceMapping
	seen := map[string]bool{}
	for _, m := range in.image.BlockDeviceMappings {
		if m.Ebs == nil {
			continue
		}
		device := aws.ToString(m.DeviceName)
		seen[device] = true
		ebs := &types.EbsBlockDevice{DeleteOnTermination: aws.Bool(true)}
		if device == root {
			if err := in.rootVolume(ebs, m.Ebs); err != nil {
				return nil, err
			}
		}
		all = append(all, types.BlockDeviceMapping{DeviceName: aws.String(device), Ebs: ebs})
	}
	for _, v := range in.p.AWS.Volumes {
		if seen[v.Device] && in.first {
			return nil, fmt.Errorf("the base has a volume at %s already; choose another device name", v.Device)
		}
		if !in.first {
			continue // the image has it
		}
		ebs := &types.EbsBlockDevice{DeleteOnTermination: aws.Bool(true), VolumeSize: aws.Int32(int32(v.Size / gib))}
		fillVolume(ebs, v, true)
		all = append(all, types.BlockDeviceMapping{DeviceName: aws.String(v.Device), Ebs: ebs})
	}
	return all, nil
}

// rootVolume fills in what is asked for of the root volume. Only a bench on a base may get
// another size or key: further states have it from there.
func (in *instance) rootVolume(ebs, base *types.EbsBlockDevice) error {
	v := in.p.AWS.Volume
	has := int64(aws.ToInt32(base.VolumeSize)) * gib
	if in.first && v.Size > 0 {
		if v.Size < has {
			return fmt.Errorf("the base %s needs %d GiB, and builders.aws.volume.size is %d GiB", aws.ToString(in.image.ImageId), has/gib, v.Size/gib)
		}
		ebs.VolumeSize = aws.Int32(int32(v.Size / gib))
	}
	fillVolume(ebs, v, in.first)
	return nil
}

func fillVolume(ebs *types.EbsBlockDevice, v spec.AWSVolume, first bool) {
	ebs.VolumeType = types.VolumeType(v.Type)
	if v.IOPS > 0 {
		ebs.Iops = aws.Int32(int32(v.IOPS))
	}
	if v.Throughput > 0 {
		ebs.Throughput = aws.Int32(int32(v.Throughput))
	}
	if !first {
		return
	}
	ebs.Encrypted = v.Encrypted
	if v.KMSKey != "" {
		ebs.KmsKeyId = aws.String(v.KMSKey)
	}
}
