package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreTakenWholeUnlessATenantIsNamed(t *testing.T) {
	c := serveCmd{APIKeys: []string{"3q2+7wAAAAAAAAAAAAAAAA==", "3q2+7wAAAAAAAAAAAAAAAA0=", "team=secret", "other=c2VjcmV0Cg=="}}
	keys, err := c.apiKeys()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ tenant, key string }{
		{"key-1", "3q2+7wAAAAAAAAAAAAAAAA=="}, {"key-2", "3q2+7wAAAAAAAAAAAAAAAA0="}, {"team", "secret"}, {"other", "c2VjcmV0Cg=="},
	} {
		if k := keys[i]; k.Tenant != want.tenant || k.Hash != sha256.Sum256([]byte(want.key)) {
			t.Errorf("key %d is not %s of %s but one of %s", i, want.key, want.tenant, k.Tenant)
		}
	}
}

func TestKeysThatWereMeantButAreMissingAreErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# none yet\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]serveCmd{
		"holds no API key":      {APIKeyFile: file},
		"have the same API key": {APIKeys: []string{"a=k", "b=k"}},
		"must not be empty":     {APIKeys: []string{"team="}},
	} {
		if _, err := c.apiKeys(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", c, err, want)
		}
	}
	t.Setenv("MOASERVE_API_KEYS", "")
	if _, err := (&serveCmd{}).apiKeys(); err == nil || !strings.Contains(err.Error(), "MOASERVE_API_KEYS is set and empty") {
		t.Errorf("an empty variable: %v", err)
	}
}
