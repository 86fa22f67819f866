package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/moaserve/moaserve/gateway"
)

// apiKeys collects the keys of the flag and of the file.
func (c *serveCmd) apiKeys() ([]gateway.APIKey, error) {
	lines := c.APIKeys
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
	}
	var keys []gateway.APIKey
	for i, line := range lines {
		tenant, key, named := strings.Cut(line, "=")
		if !named {
			// A key without a name is a tenant of its own.
			tenant, key = fmt.Sprintf("key-%d", i+1), line
		}
		k, err := gateway.NewAPIKey(key, tenant)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}
