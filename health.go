package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// healthCmd is for container health checks, where no curl is.
type healthCmd struct {
	URL     string        `arg:"" optional:"" help:"Address of the server." default:"http://127.0.0.1:8080"`
	Ready   bool          `help:"Ask whether new requests are welcome, not only whether the server works."`
	Timeout time.Duration `help:"How long to wait for the answer." default:"3s"`
}

// Run fails when the server does not answer 200.
func (c *healthCmd) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	path := "/health"
	if c.Ready {
		path = "/ready"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(withScheme(c.URL), "/")+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is %s", path, resp.Status)
	}
	return nil
}

// withScheme returns an address that may lack its scheme, such as localhost:8080.
func withScheme(url string) string {
	if strings.Contains(url, "://") {
		return url
	}
	return "http://" + url
}
