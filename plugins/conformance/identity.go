package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// identity is the kit's side of AutoMTLS. The zero value is plain text.
type identity struct {
	pem  []byte
	cert tls.Certificate
}

// newIdentity makes a certificate as go-plugin does, P-521 included, which some languages'
// libraries have had trouble with.
func newIdentity() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "localhost", Organization: []string{"gild"}},
		DNSNames:              []string{"localhost"},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return identity{}, fmt.Errorf("make a certificate: %w", err)
	}
	return identity{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}, nil
}

// credentials reads address and certificate from a handshake line.
func (id identity) credentials(line string) (address string, creds credentials.TransportCredentials, err error) {
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) < 5 {
		return "", nil, fmt.Errorf("the handshake line %q has %d fields, not 6", strings.TrimSpace(line), len(fields))
	}
	address = fields[3]
	if id.pem == nil {
		return address, insecure.NewCredentials(), nil
	}
	if len(fields) < 6 || fields[5] == "" {
		return "", nil, errors.New("the handshake line has no certificate: the plugin must serve TLS as PLUGIN_CLIENT_CERT asks, or its plugin.yaml say tls: none")
	}
	der, err := base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil {
		return "", nil, fmt.Errorf("decode the certificate of the handshake line: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", nil, fmt.Errorf("read the certificate of the handshake line: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return address, credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{id.cert}, RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12,
	}), nil
}
