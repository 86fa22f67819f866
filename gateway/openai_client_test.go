package gateway

import (
	"context"
	"errors"
	"io"
	"testing"

	openai "github.com/sashabaranov/go-openai"

	"github.com/moaserve/moaserve/runtime"
)

func newClient(ts *testServer, key string) *openai.Client {
	cfg := openai.DefaultConfig(key)
	cfg.BaseURL = ts.url("/v1")
	cfg.HTTPClient = ts.http
	return openai.NewClientWithConfig(cfg)
}

var helloRequest = openai.ChatCompletionRequest{
	Model:    "tiny",
	Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "Hello"}},
}

func TestGoOpenAIReadsAnswersAndStreams(t *testing.T) {
	f := newFake()
	f.cached = 3
	ts := newServer(t, f, Options{})
	client, ctx := newClient(ts, ""), context.Background()

	res, err := client.CreateChatCompletion(ctx, helloRequest)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Choices[0]; got.Message.Content != "w0 w1 w2 w3 w4 " || got.FinishReason != "stop" {
		t.Errorf("%+v", got)
	}
	if u := res.Usage; u.PromptTokens != helloTokens || u.CompletionTokens != 5 || u.PromptTokensDetails.CachedTokens != 3 {
		t.Errorf("%+v", u)
	}

	req := helloRequest
	req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	stream, err := client.CreateChatCompletionStream(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var text string
	var usage *openai.Usage
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chunk.Choices {
			text += c.Delta.Content
		}
		if chunk.Usage != nil {
			usage = chunk.Usage
		}
	}
	if text != "w0 w1 w2 w3 w4 " || usage == nil || usage.TotalTokens != helloTokens+5 {
		t.Errorf("%q %+v", text, usage)
	}

	plain, err := client.CreateCompletion(ctx, openai.CompletionRequest{Model: "tiny:dense", Prompt: []string{"a", "b"}, MaxTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(plain.Choices) != 2 || plain.Choices[1].Text != "w0 w1 " || plain.Choices[1].FinishReason != "length" {
		t.Errorf("%+v", plain)
	}

	models, err := client.ListModels(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(models.Models) != 3 || models.Models[0].ID != "tiny" || models.Models[0].OwnedBy != "moaserve" {
		t.Errorf("%+v", models.Models)
	}
	if m, err := client.GetModel(ctx, "org/tiny:moa-50"); err != nil || m.ID != "org/tiny:moa-50" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestGoOpenAIDecodesErrors(t *testing.T) {
	f := newFake()
	f.fail = errors.New("device lost")
	ts := newServer(t, f, Options{APIKeys: []APIKey{mustKey(t, "right", "")}})
	ctx := context.Background()
	check := func(name string, err error, status int, code string) {
		t.Helper()
		var api *openai.APIError
		if !errors.As(err, &api) {
			t.Errorf("%s: %v is no APIError", name, err)
			return
		}
		if api.HTTPStatusCode != status || api.Code != code || api.Message == "" {
			t.Errorf("%s: %d %v %q", name, api.HTTPStatusCode, api.Code, api.Message)
		}
	}

	_, err := newClient(ts, "wrong").CreateChatCompletion(ctx, helloRequest)
	check("wrong key", err, 401, "invalid_api_key")

	client := newClient(ts, "right")
	req := helloRequest
	req.Model = "gpt-4"
	_, err = client.CreateChatCompletion(ctx, req)
	check("unknown model", err, 404, "model_not_found")
	req = helloRequest
	req.MaxCompletionTokens = fakeContext
	_, err = client.CreateChatCompletionStream(ctx, req)
	check("context", err, 400, "context_length_exceeded")

	stream, err := client.CreateChatCompletionStream(ctx, helloRequest)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Recv()
	}
	check("in a stream", err, 0, "engine_error") // no status: the 200 had gone
}

func TestGoOpenAISeesAFullQueueAsAnHTTPError(t *testing.T) {
	f := newFake()
	f.refuse = runtime.ErrQueueFull
	ts := newServer(t, f, Options{})
	_, err := newClient(ts, "").CreateChatCompletionStream(context.Background(), helloRequest)
	var api *openai.APIError
	if !errors.As(err, &api) || api.HTTPStatusCode != 503 {
		t.Errorf("%v", err)
	}
}
