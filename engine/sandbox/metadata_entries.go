package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// keyNameEntry is where the key pair's name is kept for the list of public keys.
const keyNameEntry = "meta-data/public-keys/name"

// entries are all values of an instance, by path. want is what is asked for: credentials are
// only made when they are.
func (m *metadataService) entries(want string) (map[string]string, error) {
	out := map[string]string{}
	err := m.s.update(func() error {
		i := m.s.instances.get(m.id)
		if i == nil {
			return nil
		}
		now := m.s.now()
		m.s.basicEntries(i, out)
		m.s.networkEntries(i, out)
		m.s.diskEntries(i, out)
		m.accessEntries(i, now, out)
		spotEntries(i, now, out)
		if i.Metadata.Tags == "enabled" {
			if set := m.s.tags.get(i.Account + "/" + i.ID); set != nil {
				for key, value := range set.Tags {
					out["meta-data/tags/instance/"+key] = value
				}
			}
		}
		if strings.HasPrefix(want, "dynamic") || want == "" {
			return identityEntry(i, out)
		}
		return m.roleEntries(i, now, want, out)
	})
	return out, err
}

func (s *Server) basicEntries(i *instance, out map[string]string) {
	lifecycle := "on-demand"
	if i.SpotRequest != "" {
		lifecycle = "spot"
	}
	z, _ := zoneOf(i.Region, i.Zone)
	domain := "amazonaws.com"
	if partition(i.Region) == "aws-cn" {
		domain += ".cn"
	}
	for name, value := range map[string]string{
		"ami-id": i.ImageID, "ami-launch-index": number(i.Index), "ami-manifest-path": "(unknown)",
		"hostname": i.privateName(), "local-hostname": i.privateName(), "instance-action": "none", "instance-id": i.ID,
		"instance-life-cycle": lifecycle, "instance-type": i.Type, "local-ipv4": i.Private, "mac": i.MAC, "profile": "default-hvm",
		"reservation-id": i.Reservation, "security-groups": strings.Join(s.groupNames(i), "\n"), "system": "nitro",
		"placement/availability-zone": i.Zone, "placement/availability-zone-id": z.id, "placement/region": i.Region,
		"services/domain": domain, "services/partition": partition(i.Region),
		"events/maintenance/history": "[]", "events/maintenance/scheduled": "[]",
	} {
		out["meta-data/"+name] = value
	}
	if public := i.publicAddress(); public != "" {
		out["meta-data/public-ipv4"] = public
	}
	if len(i.UserData) > 0 {
		out["user-data"] = string(i.UserData)
	}
}

// privateName is the DNS name inside the VPC.
func (i *instance) privateName() string {
	name := "ip-" + strings.ReplaceAll(i.Private, ".", "-")
	if i.Region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + i.Region + ".compute.internal"
}

func (s *Server) groupNames(i *instance) (out []string) {
	for _, id := range i.Groups {
		if g := s.groups.get(id); g != nil {
			out = append(out, g.Name)
		}
	}
	return out
}

func (s *Server) networkEntries(i *instance, out map[string]string) {
	at := "meta-data/network/interfaces/macs/" + i.MAC + "/"
	for name, value := range map[string]string{
		"device-number": "0", "interface-id": i.Interface, "local-hostname": i.privateName(), "local-ipv4s": i.Private, "mac": i.MAC,
		"owner-id": i.Account, "security-group-ids": strings.Join(i.Groups, "\n"), "security-groups": strings.Join(s.groupNames(i), "\n"),
		"subnet-id": i.Subnet, "vpc-id": i.VPC, "vpc-ipv4-cidr-block": "172.31.0.0/16", "vpc-ipv4-cidr-blocks": "172.31.0.0/16",
	} {
		out[at+name] = value
	}
	if n := s.networks.get(scoped(i.Account, i.Region, "")); n != nil {
		if sub := n.subnet(i.Subnet); sub != nil {
			out[at+"subnet-ipv4-cidr-block"] = sub.CIDR
		}
	}
	if public := i.publicAddress(); public != "" {
		out[at+"public-ipv4s"] = public
		out[at+"ipv4-associations/"+public] = i.Private
	}
}

func (s *Server) diskEntries(i *instance, out map[string]string) {
	const at = "meta-data/block-device-mapping/"
	short := func(device string) string { return strings.TrimPrefix(device, "/dev/") }
	out[at+"root"] = i.RootDevice
	out[at+"ami"] = short(i.RootDevice)
	n := 0
	for _, v := range s.attached(i) {
		if v.Device != i.RootDevice {
			n++
			out[fmt.Sprintf("%sebs%d", at, n)] = short(v.Device)
		}
	}
}

// accessEntries are the keys that may log in: that of the key pair, and those that Instance
// Connect pushed in the last minute.
func (m *metadataService) accessEntries(i *instance, now time.Time, out map[string]string) {
	if i.PublicKey != "" {
		out[keyNameEntry] = i.KeyName
		out["meta-data/public-keys/0/openssh-key"] = i.PublicKey + " " + i.KeyName
	}
	for user, keys := range i.Active {
		var lines []string
		for _, k := range keys {
			if now.Before(k.Until) {
				lines = append(lines, k.Key)
			}
		}
		if len(lines) > 0 {
			out["meta-data/managed-ssh-keys/active-keys/"+user] = strings.Join(lines, "\n")
		}
	}
}

func spotEntries(i *instance, now time.Time, out map[string]string) {
	if i.Interrupt.IsZero() || now.Before(i.Interrupt.Add(-interruptNotice)) {
		return
	}
	at := i.Interrupt.Format("2006-01-02T15:04:05Z")
	out["meta-data/spot/instance-action"] = fmt.Sprintf(`{"action": "terminate", "time": "%s"}`, at)
	out["meta-data/spot/termination-time"] = at
}

// roleEntries are the credentials of the instance's role; they are made anew five minutes
// before they end.
func (m *metadataService) roleEntries(i *instance, now time.Time, want string, out map[string]string) error {
	if i.Profile == "" {
		return nil
	}
	info, err := json.Marshal(map[string]any{"Code": "Success", "LastUpdated": now.Format(time.RFC3339),
		"InstanceProfileArn": i.Profile, "InstanceProfileId": i.ProfileID})
	if err != nil {
		return err
	}
	out["meta-data/iam/info"] = string(info)
	p, ok := m.s.findProfile(i.Account, i.Profile)
	if !ok || p.Role == "" {
		return nil
	}
	role := p.Role[strings.LastIndex(p.Role, "/")+1:]
	at := "meta-data/iam/security-credentials/" + role
	out[at] = ""
	if want != at {
		return nil
	}
	if now.Add(5 * time.Minute).After(m.session.Expires) {
		principal := "arn:" + partition(i.Region) + ":sts::" + i.Account + ":assumed-role/" + role + "/" + i.ID
		m.session = m.s.newSession(i.Account, principal, 6*time.Hour)
	}
	text, err := json.MarshalIndent(map[string]string{"Code": "Success", "LastUpdated": now.Format(time.RFC3339), "Type": "AWS-HMAC",
		"AccessKeyId": m.session.AccessKey, "SecretAccessKey": m.session.Secret, "Token": m.session.Token,
		"Expiration": m.session.Expires.Format(time.RFC3339)}, "", "  ")
	out[at] = string(text)
	return err
}

func identityEntry(i *instance, out map[string]string) error {
	text, err := json.MarshalIndent(map[string]any{"accountId": i.Account, "architecture": i.Arch, "availabilityZone": i.Zone,
		"billingProducts": nil, "devpayProductCodes": nil, "marketplaceProductCodes": nil, "imageId": i.ImageID, "instanceId": i.ID,
		"instanceType": i.Type, "kernelId": nil, "pendingTime": i.Started.Format("2006-01-02T15:04:05Z"), "privateIp": i.Private,
		"ramdiskId": nil, "region": i.Region, "version": "2017-09-30"}, "", "  ")
	out["dynamic/instance-identity/document"] = string(text)
	return err
}
