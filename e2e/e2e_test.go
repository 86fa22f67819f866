// Package e2e runs the built server against the real model and talks to it with
// the SDKs that people use.
package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"

	"github.com/moaserve/moaserve/internal/testmodel"
)

// start builds and starts the server and returns its address.
func start(t *testing.T, args ...string) string {
	t.Helper()
	path := testmodel.Path(t)
	bin := filepath.Join(t.TempDir(), "moaserve")
	if out, err := exec.Command("go", "build", "-o", bin, "..").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, append([]string{"serve", "--model", path, "--listen", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server did not exit cleanly: %v", err)
			}
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("the server did not exit within 20 s of SIGTERM")
		}
	})
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Address != "" {
				address <- line.Address
			}
			t.Log(lines.Text())
		}
		done <- cmd.Wait()
	}()
	select {
	case a := <-address:
		return "http://" + a
	case err := <-done:
		done <- err
		t.Fatalf("the server ended at the start: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the server did not start within 60 s")
	}
	return ""
}

// document writes a text of about 6 kB and returns its path.
func document(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, s := range []string{"The harbour", "The old town", "The market", "The lighthouse"} {
		for _, r := range []string{"was built by fishermen long ago", "draws many visitors in summer", "lies quiet under the snow", "was painted by a famous artist", "burned down twice and rose again"} {
			b.WriteString(strings.Repeat(s+" of the little island "+r+". ", 4) + "\n")
		}
	}
	path := filepath.Join(t.TempDir(), "document.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServerSpeaksToEverySDK(t *testing.T) {
	base := start(t)
	t.Run("official Python SDK", func(t *testing.T) {
		python := os.Getenv("MOASERVE_TEST_PYTHON")
		if python == "" {
			t.Skip("MOASERVE_TEST_PYTHON names no Python with the openai package (make test sets it)")
		}
		out, err := exec.Command(python, "openai_sdk.py", base, document(t)).CombinedOutput()
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "OK") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("go-openai", func(t *testing.T) { talkWithGoOpenAI(t, base) })
	t.Run("terminal chat with a file", func(t *testing.T) { talkInTheTerminal(t, base) })
	t.Run("curl", func(t *testing.T) { talkWithCurl(t, base) })
}

func talkWithGoOpenAI(t *testing.T, base string) {
	config := openai.DefaultConfig("unused")
	config.BaseURL = base + "/v1"
	c := openai.NewClientWithConfig(config)
	text, err := os.ReadFile(document(t))
	if err != nil {
		t.Fatal(err)
	}
	models, err := c.ListModels(t.Context())
	if err != nil || len(models.Models) == 0 {
		t.Fatalf("models: %+v, %v", models, err)
	}
	request := openai.ChatCompletionRequest{
		Model: models.Models[0].ID, MaxCompletionTokens: 16, StreamOptions: &openai.StreamOptions{IncludeUsage: true},
		Messages: []openai.ChatCompletionMessage{{Role: "user", Content: string(text) + "\nWhat burned down twice?"}},
	}
	s, err := c.CreateChatCompletionStream(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	answer := ""
	var usage *openai.Usage
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk.Choices) > 0 {
			answer += chunk.Choices[0].Delta.Content
		}
		if chunk.Usage != nil {
			usage = chunk.Usage
		}
	}
	if answer == "" || usage == nil || usage.CompletionTokens > 16 || usage.TotalTokens != usage.PromptTokens+usage.CompletionTokens {
		t.Errorf("answer %q, usage %+v", answer, usage)
	}
	request.StreamOptions = nil // it goes with streams only
	request.Messages[0].Content = strings.Repeat("word ", 9000)
	_, err = c.CreateChatCompletion(t.Context(), request)
	var api *openai.APIError
	if !errors.As(err, &api) || api.HTTPStatusCode != 400 || api.Code != "context_length_exceeded" {
		t.Errorf("an over-long prompt gives %v, want an APIError of code context_length_exceeded", err)
	}
}

func talkInTheTerminal(t *testing.T, base string) {
	chat := exec.Command("go", "run", "..", "chat", "--url", base, "--file", document(t), "--max-tokens", "12", "--temperature", "0")
	chat.Stdin = strings.NewReader("What is this about?\nAnd what burned down?\n/quit\n")
	out, err := chat.Output()
	if answers := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || len(answers) < 2 || answers[0] == "" {
		t.Errorf("%v\n%s", err, out)
	}
	one, err := exec.Command("go", "run", "..", "chat", "--url", base, "--plan", "moa-25", "--max-tokens", "6", "Say", "hello.").Output()
	if err != nil || strings.TrimSpace(string(one)) == "" {
		t.Errorf("one question: %v, %q", err, one)
	}
	out, err = exec.Command("go", "run", "..", "chat", "--url", base, "--plan", "none", "Hello?").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "does not exist") && !strings.Contains(string(out), "not found") {
		t.Errorf("an unknown plan gives %v\n%s", err, out)
	}
}

func talkWithCurl(t *testing.T, base string) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	out, err := exec.Command("curl", "-sSN", base+"/v1/chat/completions", "-H", "Content-Type: application/json",
		"-d", `{"messages":[{"role":"user","content":"Say hello."}],"stream":true,"max_tokens":8,"temperature":0}`).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"delta":{`) || !strings.HasSuffix(strings.TrimSpace(string(out)), "data: [DONE]") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, path := range []string{"/health", "/ready", "/metrics", "/v1/models"} {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s is %d", path, resp.StatusCode)
		}
	}
}
