package sandbox

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// connectTime is for how long a pushed key may be used.
const connectTime = time.Minute

func instanceConnectOperations() map[string]operation {
	return map[string]operation{"SendSSHPublicKey": {run: sendSSHPublicKey, access: connectAccess}}
}

func connectAccess(c *call) []access {
	id := c.p.str("InstanceId")
	return []access{{Action: "ec2-instance-connect:SendSSHPublicKey", Resource: c.arn(kindInstance.typ, id),
		Keys: merge(c.tagKeys(kindInstance.typ, id), map[string][]string{"ec2:osuser": {c.p.str("InstanceOSUser")}})}}
}

// sendSSHPublicKey offers a key to an instance, which asks its metadata service for those
// of a user when somebody logs in as it.
func sendSSHPublicKey(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, fail("EC2InstanceNotFoundException", "The instance %s was not found.", c.p.str("InstanceId"))
	}
	if zone := c.p.str("AvailabilityZone"); zone != "" && zone != i.Zone {
		return nil, fail("EC2InstanceNotFoundException", "The instance %s is not in the Availability Zone %s.", i.ID, zone)
	}
	if i.State != "running" {
		return nil, fail("EC2InstanceStateInvalidException", "The instance %s is %s: a key can only be sent to a running instance.", i.ID, i.State)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(c.p.str("SSHPublicKey")))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return nil, fail("InvalidArgsException", "The SSH public key is not one key in OpenSSH's format.")
	}
	if !slices.Contains([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSA}, key.Type()) {
		return nil, fail("InvalidArgsException", "Keys of type %s are not supported: use RSA or ED25519.", key.Type())
	}
	user := c.p.str("InstanceOSUser")
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	if i.Active == nil {
		i.Active = map[string][]activeKey{}
	}
	live := slices.DeleteFunc(slices.Clone(i.Active[user]), func(k activeKey) bool { return !c.now.Before(k.Until) || k.Key == line })
	i.Active[user] = append(live, activeKey{Key: line, Until: c.now.Add(connectTime)})
	c.s.instances.put(i.ID, i)
	return answer{"RequestId": c.r.ID, "Success": true}, nil
}
