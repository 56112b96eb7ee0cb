package sandbox

import (
	"fmt"
	"net/http"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// fail makes an error that the caller is at fault for.
func fail(code, format string, args ...any) *wire.Error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalidValue(format string, args ...any) *wire.Error {
	return fail("InvalidParameterValue", format, args...)
}

func invalidCombination(format string, args ...any) *wire.Error {
	return fail("InvalidParameterCombination", format, args...)
}

func missing(name string) *wire.Error {
	return fail("MissingParameter", "The request must contain the parameter %s", name)
}

func wrongState(format string, args ...any) *wire.Error {
	return fail("IncorrectState", format, args...)
}

// internal hides what went wrong here from the caller; the server logs it.
func internal() *wire.Error {
	return &wire.Error{Code: "InternalError", Message: "An internal error has occurred", Status: http.StatusInternalServerError}
}

// kind of resource: how its ids look, and what EC2 answers when there is no such one.
type kind struct {
	prefix  string // of ids: "ami"
	typ     string // in tag specifications and tags: "image"
	missing string // error code
	bad     string // error code of an id that can't be one
	words   string // with the id: "The image id '[%s]' does not exist"
	badText string
}

var (
	kindImage = kind{"ami", "image", "InvalidAMIID.NotFound", "InvalidAMIID.Malformed",
		"The image id '[%s]' does not exist", "Invalid id: \"%s\" (expecting \"ami-...\")"}
	kindInstance = kind{"i", "instance", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed",
		"The instance ID '%s' does not exist", "Invalid id: \"%s\""}
	kindSnapshot = kind{"snap", "snapshot", "InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed",
		"The snapshot '%s' does not exist.", "Value (%s) for parameter snapshotId is invalid. Expected: 'snap-...'."}
	kindVolume = kind{"vol", "volume", "InvalidVolume.NotFound", "InvalidVolumeID.Malformed",
		"The volume '%s' does not exist.", "Value (%s) for parameter volumeId is invalid. Expected: 'vol-...'."}
	kindGroup = kind{"sg", "security-group", "InvalidGroup.NotFound", "InvalidGroupId.Malformed",
		"The security group '%s' does not exist", "Invalid id: \"%s\" (expecting \"sg-...\")"}
	kindRule = kind{"sgr", "security-group-rule", "InvalidSecurityGroupRuleId.NotFound", "InvalidSecurityGroupRuleId.Malformed",
		"The security group rule ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"sgr-...\")"}
	kindKey = kind{"key", "key-pair", "InvalidKeyPair.NotFound", "InvalidKeyPair.NotFound",
		"The key pair ID '%s' does not exist", "The key pair ID '%s' does not exist"}
	kindVPC = kind{"vpc", "vpc", "InvalidVpcID.NotFound", "InvalidVpcID.Malformed",
		"The vpc ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"vpc-...\")"}
	kindSubnet = kind{"subnet", "subnet", "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed",
		"The subnet ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"subnet-...\")"}
	kindInterface = kind{"eni", "network-interface", "InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceID.Malformed",
		"The networkInterface ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"eni-...\")"}
	kindSpot = kind{"sir", "spot-instances-request", "InvalidSpotInstanceRequestID.NotFound", "InvalidSpotInstanceRequestID.Malformed",
		"The spot instance request ID '%s' does not exist", "Invalid Id: \"%s\" (expecting \"sir-...\")"}
	kindRoutes = kind{"rtb", "route-table", "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed",
		"The routeTable ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"rtb-...\")"}
	kindGateway = kind{"igw", "internet-gateway", "InvalidInternetGatewayID.NotFound", "InvalidInternetGatewayId.Malformed",
		"The internetGateway ID '%s' does not exist", "Invalid id: \"%s\" (expecting \"igw-...\")"}
)

func (k kind) notFound(id string) *wire.Error { return fail(k.missing, k.words, id) }

// check tells an id that can't be one of the kind from one that just isn't there.
func (k kind) check(id string) error {
	if wellFormed(id, k.prefix) {
		return nil
	}
	return fail(k.bad, k.badText, id)
}
