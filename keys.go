package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moaserve/moaserve/gateway"
)

// apiKeys collects the keys of the flag and of the file.
func (c *serveCmd) apiKeys() ([]gateway.APIKey, error) {
	lines := c.APIKeys
	// What was meant to close a server must not leave it open.
	if value, set := os.LookupEnv("MOASERVE_API_KEYS"); set && strings.TrimSpace(value) == "" && len(lines) == 0 {
		return nil, errors.New("MOASERVE_API_KEYS is set and empty: give it a key, or unset it to let everybody in")
	}
	if c.APIKeyFile != "" {
		b, err := os.ReadFile(c.APIKeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the API keys: %w", err)
		}
		for _, line := range strings.Split(string(b), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		if len(lines) == len(c.APIKeys) {
			return nil, fmt.Errorf("%s holds no API key", c.APIKeyFile)
		}
	}
	var keys []gateway.APIKey
	tenants := make(map[[sha256.Size]byte]string)
	for i, line := range lines {
		tenant, key, named := strings.Cut(line, "=")
		if !named || isPadded(line) {
			// A key without a name is a tenant of its own.
			tenant, key = fmt.Sprintf("key-%d", i+1), line
		}
		k, err := gateway.NewAPIKey(key, tenant)
		if err != nil {
			return nil, err
		}
		if other, twice := tenants[k.Hash]; twice {
			return nil, fmt.Errorf("%s and %s have the same API key", other, tenant)
		}
		tenants[k.Hash] = tenant
		keys = append(keys, k)
	}
	return keys, nil
}

// isPadded reports whether a line is a key that base64 has filled up with =, such as
// openssl rand -base64 gives, and not a tenant whose key is missing (TENANT=$UNSET).
func isPadded(line string) bool {
	const shortest = 16 // 12 bytes; tenants have shorter names, and keys should not
	name, rest, _ := strings.Cut(line, "=")
	return len(line) >= shortest && len(line)%4 == 0 && (rest == "" || rest == "=") && name != ""
}
