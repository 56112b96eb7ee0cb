package connect

import (
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
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
// with a random salt. The password is 256 random bits, so deriving a key from it needs no
// work. The format says nothing about who wrote it: that is known from SSM. What was cut
// short is found by gzip, inside.
type sealer struct{ password string }

func newSealer() sealer {
	key := make([]byte, 32)
	rand.Read(key)
	return sealer{hex.EncodeToString(key)}
}

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

// wrap encrypts the password to a machine's RSA key, which is in PEM.
func (s sealer) wrap(public string) (string, error) {
	block, _ := pem.Decode([]byte(public))
	if block == nil {
		return "", errors.New("the machine gave no public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("the machine's public key: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return "", fmt.Errorf("the machine's public key is a %T, not one of RSA", parsed)
	}
	data, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, []byte(s.password), nil)
	if err != nil {
		return "", fmt.Errorf("encrypt to the machine's public key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(data), nil
}
