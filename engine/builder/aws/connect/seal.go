package connect

import (
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// sealer encrypts what goes over Run Command, in the format of `openssl enc`: AES-256-CBC
// with a random salt. The password is as good as 256 random bits, so deriving a key from it
// needs no work. The format says nothing about who wrote it: that is known from SSM. What was cut
// short is found by gzip, inside.
type sealer struct{ password string }

const (
	saltMagic = "Salted__"
	saltSize  = 8
	// maxMessage bounds what one message holds, decompressed.
	maxMessage = 16 << 20
)

// seal returns data compressed, encrypted and in base64.
func (s sealer) seal(data []byte) (string, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(data); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	head := make([]byte, len(saltMagic)+saltSize)
	copy(head, saltMagic)
	rand.Read(head[len(saltMagic):])
	block, iv, err := s.cipher(head[len(saltMagic):])
	if err != nil {
		return "", err
	}
	padding := aes.BlockSize - packed.Len()%aes.BlockSize
	plain := append(packed.Bytes(), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	return base64.StdEncoding.EncodeToString(append(head, plain...)), nil
}

// open is the reverse of seal.
func (s sealer) open(text string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(data, []byte(saltMagic))
	if !ok || len(rest) <= saltSize || (len(rest)-saltSize)%aes.BlockSize != 0 {
		return nil, errors.New("it isn't an encrypted message")
	}
	block, iv, err := s.cipher(rest[:saltSize])
	if err != nil {
		return nil, err
	}
	plain := rest[saltSize:]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, plain)
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > aes.BlockSize {
		return nil, errors.New("it was encrypted with another key")
	}
	z, err := gzip.NewReader(bytes.NewReader(plain[:len(plain)-padding]))
	if err != nil {
		return nil, fmt.Errorf("decompress it: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("decompress it: %w", err)
	}
	if len(out) > maxMessage {
		return nil, fmt.Errorf("it holds more than %d bytes", maxMessage)
	}
	return out, nil
}

func (s sealer) cipher(salt []byte) (cipher.Block, []byte, error) {
	derived, err := pbkdf2.Key(sha256.New, s.password, salt, 1, 32+aes.BlockSize)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(derived[:32])
	return block, derived[32:], err
}

// newKeys returns a key pair for one session, the public one in PEM.
func newKeys() (*ecdh.PrivateKey, string, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.PublicKey())
	if err != nil {
		return nil, "", fmt.Errorf("write a key: %w", err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// agree makes the password that the machine made too, from gild's private key and the
// machine's public one, which is in PEM.
func agree(mine *ecdh.PrivateKey, public string) (sealer, error) {
	block, _ := pem.Decode([]byte(public))
	if block == nil {
		return sealer{}, errors.New("the machine gave no public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return sealer{}, fmt.Errorf("the machine's public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return sealer{}, fmt.Errorf("the machine's public key is a %T, not one of ECDSA", parsed)
	}
	theirs, err := key.ECDH()
	if err != nil {
		return sealer{}, fmt.Errorf("the machine's public key: %w", err)
	}
	secret, err := mine.ECDH(theirs)
	if err != nil {
		return sealer{}, fmt.Errorf("the machine's public key: %w", err)
	}
	sum := sha256.Sum256(secret)
	return sealer{hex.EncodeToString(sum[:])}, nil
}
