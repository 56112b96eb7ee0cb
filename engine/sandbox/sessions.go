package sandbox

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"time"
)

// newSession makes temporary credentials of a principal, an ARN. It needs the lock. Their
// end is by the real clock, because requests are signed by it.
func (s *Server) newSession(account, principal string, life time.Duration) credential {
	b := make([]byte, 10+30+96)
	rand.Read(b)
	c := credential{
		AccessKey: "ASIA" + base32.StdEncoding.EncodeToString(b[:10]),
		Secret:    base64.StdEncoding.EncodeToString(b[10:40]),
		Token:     base64.StdEncoding.EncodeToString(b[40:]),
		Account:   account, Principal: principal, Expires: time.Now().Add(life).UTC().Truncate(time.Second),
	}
	for id, old := range s.credentials.all {
		if time.Now().After(old.Expires) {
			s.credentials.remove(id)
		}
	}
	s.credentials.put(c.AccessKey, &c)
	return c
}
