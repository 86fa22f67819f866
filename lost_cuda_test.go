//go:build cuda

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// asProgram, in the environment, makes the test binary the program.
const asProgram = "MOASERVE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestLostDeviceEndsTheServer lets a kernel fault in the middle of an answer, on the
// fake driver: the client is told, /ready fails, and the process ends with an error.
func TestLostDeviceEndsTheServer(t *testing.T) {
	if !strings.Contains(os.Getenv("LD_LIBRARY_PATH"), "fake") {
		t.Skip("needs the fake driver")
	}
	// 3 layers, so the 100th call is in the 34th step.
	server := exec.Command(os.Args[0], "serve", "--model", "synthetic:tiny", "--backend", "cuda", "--listen", "127.0.0.1:0", "--kv-memory", "64MiB", "--no-warm-up")
	server.Env = append(os.Environ(), asProgram+"=1", "FAKECUDA_FAIL=kernel:rope_append,100,700")
	stderr, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill() }()
	address, logged := readLog(t, stderr)
	resp, err := http.Post("http://"+address+"/v1/completions", "application/json",
		strings.NewReader(`{"prompt":"Once upon a time","max_tokens":200,"ignore_eos":true,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	if n := bytes.Count(body, []byte("data: ")); n < 20 || !bytes.Contains(body, []byte(`"error"`)) {
		t.Errorf("%d events, and no error among them: %.300s", n, body)
	}
	if resp, err = http.Get("http://" + address + "/ready"); err != nil {
		t.Fatalf("the server ended before anybody could see that it is not ready: %v", err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/ready answers %s", resp.Status)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the server goes on")
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(logged(), "the device is lost") {
		t.Errorf("the server ended with %v and said:\n%s", err, logged())
	}
}

// readLog waits until the server says its address and collects what it says.
func readLog(t *testing.T, r io.Reader) (address string, logged func() string) {
	t.Helper()
	var mu sync.Mutex
	var all strings.Builder
	found := make(chan string, 1)
	serving := regexp.MustCompile(`msg=serving .*address=(\S+)`)
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			mu.Lock()
			all.WriteString(lines.Text() + "\n")
			mu.Unlock()
			if m := serving.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	logged = func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
	select {
	case address = <-found:
	case <-time.After(time.Minute):
		t.Fatalf("the server does not start:\n%s", logged())
	}
	return address, logged
}
