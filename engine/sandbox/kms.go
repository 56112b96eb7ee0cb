package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// kmsKey is a key of a customer. Nothing is encrypted with it: see LIMITS.md.
type kmsKey struct {
	ID, ARN, Account, Region string
	Description              string
	Created                  time.Time
	MultiRegion              bool
	Grants                   map[string]string // by name, their ids
}

// alias is a name for a key.
type alias struct {
	Name, ARN, Account, Region string
	Key                        string // its id
	Created                    time.Time
}

func kmsOperations() map[string]operation {
	out := quick(map[string]func(*call) (answer, error){
		"CreateAlias": createAlias,
		"CreateGrant": createGrant,
		"CreateKey":   createKey,
		"DescribeKey": describeKey,
		"ListAliases": listAliases,
	})
	for action, op := range out {
		op.access = kmsAccess
		out[action] = op
	}
	return out
}

// kmsAccess are the permissions for a call, on the key and alias that it names. A key that
// isn't there is taken for one of the caller's.
func kmsAccess(c *call) []access {
	action, name := "kms:"+c.r.Action, c.p.or("KeyId", c.p.str("TargetKeyId"))
	if name == "" || c.r.Action == "ListAliases" {
		return []access{{action, "*", nil}}
	}
	arn, keys := partitionARN(c.region, "kms", c.account, "key/"+name), map[string][]string{}
	if k := c.s.key(c.account, c.region, name); k != nil {
		arn = k.ARN
		for _, a := range c.s.aliases.all {
			if a.Key == k.ID && c.mine(a.Account, a.Region) {
				keys["kms:ResourceAliases"] = append(keys["kms:ResourceAliases"], a.Name)
			}
		}
	}
	if strings.Contains(name, "alias/") {
		keys["kms:RequestAlias"] = []string{name[strings.Index(name, "alias/"):]}
	}
	all := []access{{action, arn, keys}}
	if c.r.Action == "CreateAlias" {
		all = append(all, access{action, partitionARN(c.region, "kms", c.account, c.p.str("AliasName")), nil})
	}
	return all
}

const ebsAlias = "alias/aws/ebs"

// awsKey is the key that AWS manages for EBS.
func awsKey(account, region string) *kmsKey {
	arn := defaultKey(account, region)
	return &kmsKey{ID: arn[strings.LastIndex(arn, "/")+1:], ARN: arn, Account: account, Region: region,
		Description: "Default key that protects my EBS volumes when no other key is defined"}
}

func (k *kmsKey) managed() bool { return k.ARN == defaultKey(k.Account, k.Region) }

// keyOf finds a key by id, ARN, alias or alias ARN, and returns its ARN.
func (s *Server) keyOf(account, region, name string) (arn string, ok bool) {
	if k := s.key(account, region, name); k != nil {
		return k.ARN, true
	}
	return "", false
}

func (s *Server) key(account, region, name string) *kmsKey {
	if rest, ok := strings.CutPrefix(name, partitionARN(region, "kms", account, "")); ok {
		name = strings.TrimPrefix(rest, "key/")
	}
	if name == ebsAlias {
		return awsKey(account, region)
	}
	if strings.HasPrefix(name, "alias/") {
		a := s.aliases.get(scoped(account, region, name))
		if a == nil {
			return nil
		}
		name = a.Key
	}
	if managed := awsKey(account, region); name == managed.ID {
		return managed
	}
	return s.kmsKeys.get(scoped(account, region, name))
}

// kms finds the key of a request.
func (c *call) kms(name string) (*kmsKey, error) {
	if k := c.s.key(c.account, c.region, name); k != nil {
		return k, nil
	}
	arn := name
	if !strings.HasPrefix(name, "arn:") {
		rest := name
		if !strings.HasPrefix(name, "alias/") {
			rest = "key/" + name
		}
		arn = partitionARN(c.region, "kms", c.account, rest)
	}
	if strings.Contains(arn, ":alias/") {
		return nil, fail("NotFoundException", "Alias %s is not found.", arn)
	}
	return nil, fail("NotFoundException", "Key '%s' does not exist", arn)
}

func createKey(c *call) (answer, error) {
	if spec := c.p.or("KeySpec", c.p.or("CustomerMasterKeySpec", "SYMMETRIC_DEFAULT")); spec != "SYMMETRIC_DEFAULT" {
		return nil, fail("UnsupportedOperationException", "This sandbox has only keys of the spec SYMMETRIC_DEFAULT.")
	}
	if usage := c.p.or("KeyUsage", "ENCRYPT_DECRYPT"); usage != "ENCRYPT_DECRYPT" {
		return nil, fail("UnsupportedOperationException", "This sandbox has only keys of the usage ENCRYPT_DECRYPT.")
	}
	k := &kmsKey{ID: uuid.NewString(), Account: c.account, Region: c.region, Description: c.p.str("Description"),
		Created: c.now, MultiRegion: c.p.yes("MultiRegion"), Grants: map[string]string{}}
	if k.MultiRegion {
		k.ID = "mrk-" + strings.ReplaceAll(k.ID, "-", "")
	}
	k.ARN = partitionARN(c.region, "kms", c.account, "key/"+k.ID)
	c.s.kmsKeys.put(scoped(c.account, c.region, k.ID), k)
	return answer{"KeyMetadata": k.metadata()}, nil
}

func (k *kmsKey) metadata() answer {
	manager := "CUSTOMER"
	if k.managed() {
		manager = "AWS"
	}
	return answer{
		"AWSAccountId": k.Account, "KeyId": k.ID, "Arn": k.ARN, "CreationDate": k.Created, "Enabled": true,
		"Description": k.Description, "KeyUsage": "ENCRYPT_DECRYPT", "KeyState": "Enabled", "Origin": "AWS_KMS",
		"KeyManager": manager, "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "KeySpec": "SYMMETRIC_DEFAULT",
		"EncryptionAlgorithms": []string{"SYMMETRIC_DEFAULT"}, "MultiRegion": k.MultiRegion,
	}
}

func describeKey(c *call) (answer, error) {
	k, err := c.kms(c.p.str("KeyId"))
	if err != nil {
		return nil, err
	}
	return answer{"KeyMetadata": k.metadata()}, nil
}

func createAlias(c *call) (answer, error) {
	name := c.p.str("AliasName")
	switch {
	case !strings.HasPrefix(name, "alias/"):
		return nil, &wire.Error{Code: "ValidationException", Message: "Invalid identifier: an alias begins with alias/"}
	case strings.HasPrefix(name, "alias/aws/"):
		return nil, fail("NotAuthorizedException", "alias/aws/ is reserved for keys that AWS manages.")
	case strings.Contains(c.p.str("TargetKeyId"), "alias/"):
		return nil, fail("ValidationException", "Aliases must refer to keys. Not aliases")
	}
	k, err := c.kms(c.p.str("TargetKeyId"))
	if err != nil {
		return nil, err
	}
	if k.managed() {
		return nil, fail("NotAuthorizedException", "Key %s is managed by AWS.", k.ARN)
	}
	id := scoped(c.account, c.region, name)
	arn := partitionARN(c.region, "kms", c.account, name)
	if c.s.aliases.get(id) != nil {
		return nil, fail("AlreadyExistsException", "An alias with the name %s already exists", arn)
	}
	c.s.aliases.put(id, &alias{Name: name, ARN: arn, Account: c.account, Region: c.region, Key: k.ID, Created: c.now})
	return answer{}, nil
}

func listAliases(c *call) (answer, error) {
	managed := awsKey(c.account, c.region)
	found := []*alias{{Name: ebsAlias, ARN: partitionARN(c.region, "kms", c.account, ebsAlias), Key: managed.ID}}
	for _, a := range c.s.aliases.all {
		if c.mine(a.Account, a.Region) {
			found = append(found, a)
		}
	}
	if c.p.has("KeyId") {
		k, err := c.kms(c.p.str("KeyId"))
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(a *alias) bool { return a.Key != k.ID })
	}
	slices.SortFunc(found, func(a, b *alias) int { return strings.Compare(a.Name, b.Name) })
	limit := int64(50)
	if c.p.has("Limit") {
		limit = c.p.num("Limit")
	}
	part, marker := after(found, c.p.str("Marker"), limit, func(a *alias) string { return a.Name })
	out := answer{"Truncated": marker != "", "Aliases": list(part, func(a *alias) any {
		one := answer{"AliasName": a.Name, "AliasArn": a.ARN, "TargetKeyId": a.Key}
		setTime(one, "CreationDate", a.Created)
		return one
	})}
	set(out, "NextMarker", marker)
	return out, nil
}

// after returns the items behind a marker, at most limit of them, and the marker of the
// next part, empty at the end. Items are sorted by name; a marker is the last name seen.
func after[T any](items []T, marker string, limit int64, name func(T) string) (part []T, next string) {
	for _, item := range items {
		if marker != "" && name(item) <= marker {
			continue
		}
		if int64(len(part)) == limit {
			return part, name(part[len(part)-1])
		}
		part = append(part, item)
	}
	return part, ""
}

// createGrant gives a grant an id. What a grant allows isn't asked for: see LIMITS.md.
func createGrant(c *call) (answer, error) {
	k, err := c.kms(c.p.str("KeyId"))
	if err != nil {
		return nil, err
	}
	if k.managed() {
		return nil, fail("AccessDeniedException", "Key %s is managed by AWS.", k.ARN)
	}
	name := c.p.str("Name")
	id, again := k.Grants[name]
	if name == "" || !again {
		b := make([]byte, 32)
		rand.Read(b)
		id = hex.EncodeToString(b)
		if name == "" {
			name = id
		}
		k.Grants[name] = id
		c.s.kmsKeys.put(scoped(k.Account, k.Region, k.ID), k)
	}
	return answer{"GrantId": id, "GrantToken": base64.StdEncoding.EncodeToString([]byte(id))}, nil
}
