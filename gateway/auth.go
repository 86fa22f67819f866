package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"github.com/valyala/fasthttp"
)

// APIKey lets a client in. Only the key's hash is held.
type APIKey struct {
	Hash   [sha256.Size]byte
	Tenant string // whose queue share and prefix cache the requests use
}

// NewAPIKey returns the APIKey of a key. It fails for an empty key.
func NewAPIKey(key, tenant string) (APIKey, error) {
	if key == "" {
		return APIKey{}, errors.New("gateway: an API key must not be empty")
	}
	return APIKey{Hash: sha256.Sum256([]byte(key)), Tenant: tenant}, nil
}

// keyring checks keys. An empty keyring lets everybody in as the tenant "".
type keyring []APIKey

// tenant returns the tenant of the key in the header and whether it is a valid
// one. It compares with all keys, each in constant time, so that the time taken
// tells nothing about them.
func (k keyring) tenant(h *fasthttp.RequestHeader) (string, bool) {
	if len(k) == 0 {
		return "", true
	}
	key := h.Peek("X-Api-Key")
	if auth := h.Peek(fasthttp.HeaderAuthorization); len(auth) > 0 {
		scheme, rest, _ := bytes.Cut(auth, []byte(" "))
		if !bytes.EqualFold(scheme, []byte("Bearer")) {
			return "", false
		}
		key = bytes.TrimSpace(rest)
	}
	sum := sha256.Sum256(key)
	found := -1
	for i := range k {
		same := subtle.ConstantTimeCompare(sum[:], k[i].Hash[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return "", false
	}
	return k[found].Tenant, true
}
