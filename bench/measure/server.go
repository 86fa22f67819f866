package measure

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	openai "github.com/sashabaranov/go-openai"

	"github.com/moaserve/moaserve/client"
)

// serverTarget completes over HTTP, streamed: any server with OpenAI's POST
// /v1/completions will do.
type serverTarget struct {
	base, key string
	client    *client.Client
	model     string
	perWord   float64 // tokens of a word of a prompt, as the server counts them
}

// promptWords are a token each in the vocabularies of most models.
var promptWords = strings.Fields(`the of and to in is that it was for on are as with they at be this from have or by one had not but what
	all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has
	more her two like him see time could no make than first been its who now people my made over did down only way find use may water long
	little very after words called just where most know`)

// calibrationWords make a prompt whose tokens are counted once.
const calibrationWords = 500

// newServerTarget takes the first model that the server lists, and counts how many
// tokens the words of a prompt are.
func newServerTarget(ctx context.Context, url, key string) (*serverTarget, error) {
	base := strings.TrimSuffix(strings.TrimRight(url, "/"), "/v1")
	t := &serverTarget{base: base, key: key, client: client.New(base, key), perWord: 1}
	models, err := t.client.ListModels(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking %s for its models: %w", url, err)
	}
	if len(models.Models) == 0 {
		return nil, fmt.Errorf("%s serves no model", url)
	}
	t.model = models.Models[0].ID
	answer, err := t.client.CreateCompletion(ctx, openai.CompletionRequest{Model: t.model, Prompt: t.prompt(calibrationWords, 0), MaxTokens: 1})
	if err != nil {
		return nil, fmt.Errorf("counting the tokens of a prompt: %w", err)
	}
	if answer.Usage == nil || answer.Usage.PromptTokens < 1 {
		return nil, fmt.Errorf("%s does not count the tokens of a prompt", url)
	}
	t.perWord = float64(answer.Usage.PromptTokens) / calibrationWords
	return t, nil
}

// prompt returns random words of about that many tokens.
func (t *serverTarget) prompt(tokens int, seed uint64) string {
	rnd := rand.New(rand.NewPCG(seed, uint64(tokens)))
	var b strings.Builder
	for range max(1, int(math.Round(float64(tokens)/t.perWord))) {
		b.WriteString(promptWords[rnd.IntN(len(promptWords))])
		b.WriteByte(' ')
	}
	return b.String()
}

// completion is a request with the one extension that a measurement needs: the stream
// must not end early. vLLM and llama-server know it as well.
type completion struct {
	openai.CompletionRequest
	IgnoreEOS bool `json:"ignore_eos"`
}

// complete implements target.
func (t *serverTarget) complete(ctx context.Context, prompt, answer int, seed uint64, arrived func(time.Time)) error {
	body, err := json.Marshal(completion{openai.CompletionRequest{Model: t.model, Prompt: t.prompt(prompt, seed), MaxTokens: answer, Stream: true}, true})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.base+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.key != "" {
		req.Header.Set("Authorization", "Bearer "+t.key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return unlessCancelled(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	if resp.StatusCode != http.StatusOK {
		lines.Scan()
		return fmt.Errorf("%s answers %s: %.300s", t.base, resp.Status, lines.Text())
	}
	texts, end := 0, time.Time{}
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok || bytes.Equal(bytes.TrimSpace(data), []byte("[DONE]")) {
			continue // a comment, an empty line or the end
		}
		var chunk struct {
			openai.CompletionResponse
			Error *openai.APIError `json:"error"`
		}
		switch err := json.Unmarshal(data, &chunk); {
		case err != nil: // half a line, perhaps, of a stream that was left
			return unlessCancelled(ctx, fmt.Errorf("decoding a chunk: %w", err))
		case chunk.Error != nil:
			return chunk.Error
		case len(chunk.Choices) == 0:
		case chunk.Choices[0].Text != "":
			texts++
			arrived(time.Now())
		case chunk.Choices[0].FinishReason != "":
			end = time.Now()
		}
	}
	if texts == 0 && !end.IsZero() { // all of the answer was half a character, or a special token
		arrived(end)
	}
	return unlessCancelled(ctx, lines.Err())
}
