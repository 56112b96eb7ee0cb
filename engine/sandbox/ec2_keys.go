package sandbox

import (
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyPair is the public half of a key pair; the private one is given out once and not kept.
type keyPair struct {
	ID, Account, Region, Name string
	Type                      string // "rsa" or "ed25519"
	Public                    string // a line of authorized_keys
	Fingerprint               string
	Created                   time.Time
}

func (c *call) key(name string) *keyPair { return c.s.keys.get(scoped(c.account, c.region, name)) }

func (c *call) keyByID(id string) *keyPair {
	for _, k := range c.s.keys.all {
		if k.ID == id && c.mine(k.Account, k.Region) {
			return k
		}
	}
	return nil
}

// newKey checks what CreateKeyPair and ImportKeyPair have in common.
func (c *call) newKey() (name string, tags map[string]string, err error) {
	name = c.p.str("KeyName")
	specs, err := c.tagsAtCreation(kindKey.typ)
	if err != nil {
		return "", nil, err
	}
	if name == "" || len(name) > 255 || strings.TrimSpace(name) != name {
		return "", nil, invalidValue("Value (%s) for parameter keyName is invalid. It must have 1 to 255 characters, and no spaces at its ends.", name)
	}
	if c.key(name) != nil {
		return "", nil, fail("InvalidKeyPair.Duplicate", "The keypair already exists")
	}
	n := 0
	for _, k := range c.s.keys.all {
		if c.mine(k.Account, k.Region) {
			n++
		}
	}
	if n >= c.s.cfg.Quotas.KeyPairs {
		return "", nil, fail("KeyPairLimitExceeded", "Maximum of %d keypairs reached.", c.s.cfg.Quotas.KeyPairs)
	}
	return name, specs[kindKey.typ], nil
}

func (c *call) keepKey(k *keyPair, tags map[string]string) {
	k.ID, k.Account, k.Region, k.Created = newID(kindKey.prefix), c.account, c.region, c.now
	c.s.keys.put(scoped(c.account, c.region, k.Name), k)
	c.setTags(k.ID, kindKey.typ, tags)
	c.born(k.ID, "key:"+k.Name)
}

func createKeyPair(c *call) (answer, error) {
	name, tags, err := c.newKey()
	if err != nil {
		return nil, err
	}
	if format := c.p.str("KeyFormat"); format == "ppk" {
		return nil, invalidValue("The sandbox makes keys in the format pem only, not %q.", format)
	}
	k := &keyPair{Name: name, Type: c.p.or("KeyType", "rsa")}
	var material string
	if k.Type == "ed25519" {
		material, err = k.makeEd25519()
	} else {
		material, err = k.makeRSA()
	}
	if err != nil {
		return nil, err
	}
	c.keepKey(k, tags)
	return answer{"KeyName": name, "KeyPairId": k.ID, "KeyFingerprint": k.Fingerprint, "KeyMaterial": material, "Tags": tagList(tags)}, nil
}

func (k *keyPair) makeEd25519() (material string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", err
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	k.Public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
	k.Fingerprint = sshFingerprint(line)
	return string(pem.EncodeToMemory(block)), nil
}

// makeRSA makes a key whose fingerprint is the SHA-1 of the private key, as EC2 does for
// keys it makes itself.
func (k *keyPair) makeRSA() (material string, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", err
	}
	line, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		return "", err
	}
	sum := sha1.Sum(der)
	k.Public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
	k.Fingerprint = colons(sum[:])
	block := pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}
	return string(pem.EncodeToMemory(&block)), nil
}

func importKeyPair(c *call) (answer, error) {
	name, tags, err := c.newKey()
	if err != nil {
		return nil, err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(c.p.bytes("PublicKeyMaterial"))
	if err != nil {
		return nil, fail("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	k := &keyPair{Name: name, Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))}
	switch public.Type() {
	case ssh.KeyAlgoED25519:
		k.Type, k.Fingerprint = "ed25519", sshFingerprint(public)
	case ssh.KeyAlgoRSA:
		der, err := x509.MarshalPKIXPublicKey(public.(ssh.CryptoPublicKey).CryptoPublicKey())
		if err != nil {
			return nil, fail("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
		}
		sum := md5.Sum(der)
		k.Type, k.Fingerprint = "rsa", colons(sum[:])
	default:
		return nil, fail("InvalidKey.Format", "Key type %s is not supported", public.Type())
	}
	c.keepKey(k, tags)
	return answer{"KeyName": name, "KeyPairId": k.ID, "KeyFingerprint": k.Fingerprint, "Tags": tagList(tags)}, nil
}

func sshFingerprint(k ssh.PublicKey) string {
	sum := sha256.Sum256(k.Marshal())
	return base64.StdEncoding.EncodeToString(sum[:])
}

func colons(sum []byte) string {
	var parts []string
	for _, b := range sum {
		parts = append(parts, hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}

func describeKeyPairs(c *call) (answer, error) {
	match, err := matcher(c, getters[keyPair]{
		"key-name":    one(func(k *keyPair) string { return k.Name }),
		"key-pair-id": one(func(k *keyPair) string { return k.ID }),
		"fingerprint": one(func(k *keyPair) string { return k.Fingerprint }),
	}, func(k *keyPair) string { return k.ID })
	if err != nil {
		return nil, err
	}
	names, ids := c.p.texts("KeyNames"), c.p.texts("KeyPairIds")
	for _, name := range names {
		if c.key(name) == nil || !c.sees("key:"+name) {
			return nil, fail(kindKey.missing, "The key pair '%s' does not exist", name)
		}
	}
	for _, id := range ids {
		if c.keyByID(id) == nil || !c.sees(id) {
			return nil, kindKey.notFound(id)
		}
	}
	out := []any{}
	for _, k := range c.s.keys.all {
		asked := len(names)+len(ids) == 0 || slices.Contains(names, k.Name) || slices.Contains(ids, k.ID)
		if c.mine(k.Account, k.Region) && asked && c.sees(k.ID) && match(k) {
			out = append(out, k.answer(c))
		}
	}
	return answer{"KeyPairs": out}, nil
}

func (k *keyPair) answer(c *call) answer {
	a := answer{"KeyName": k.Name, "KeyPairId": k.ID, "KeyFingerprint": k.Fingerprint, "KeyType": k.Type,
		"CreateTime": k.Created, "Tags": tagList(c.tagsOf(k.ID))}
	if c.p.yes("IncludePublicKey") {
		a["PublicKey"] = k.Public + " " + k.Name
	}
	return a
}

// deleteKeyPair succeeds also when there is no such key pair, as on AWS.
func deleteKeyPair(c *call) (answer, error) {
	name, id := c.p.str("KeyName"), c.p.str("KeyPairId")
	if name == "" && id == "" {
		return nil, missing("KeyName")
	}
	k := c.keyByID(id)
	if name != "" {
		k = c.key(name)
	}
	if k == nil {
		return answer{"Return": true}, nil
	}
	c.s.keys.remove(scoped(c.account, c.region, k.Name))
	c.setTags(k.ID, kindKey.typ, nil)
	return answer{"Return": true, "KeyPairId": k.ID}, nil
}
