package runtime

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/tokenizer"
	"github.com/moaserve/moaserve/runtime/weights"
)

// openFolder opens a Hugging Face folder: safetensors, config.json,
// tokenizer.json and the optional files beside them.
func openFolder(path string) (*files, error) {
	dir, err := weights.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	f := &files{path: path, source: dir}
	if f.model, err = model.FromConfig(dir.Config, dir); err == nil {
		f.tokenizer, err = tokenizer.FromJSON(dir.Tokenizer, dir.TokenizerConfig, dir.GenerationConfig)
	}
	if err == nil {
		f.template, err = folderTemplate(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), dir.Close())
	}
	return f, nil
}

// folderTemplate finds the chat template: chat_template.jinja, or the
// chat_template of tokenizer_config.json, which is a string or a list of named
// templates of which "default" is taken.
func folderTemplate(dir *weights.Folder) (string, error) {
	if len(dir.ChatTemplate) > 0 {
		return string(dir.ChatTemplate), nil
	}
	if len(dir.TokenizerConfig) == 0 {
		return "", nil
	}
	var c struct {
		ChatTemplate json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(dir.TokenizerConfig, &c); err != nil {
		return "", fmt.Errorf("tokenizer_config.json: %w", err)
	}
	var one string
	if len(c.ChatTemplate) == 0 || json.Unmarshal(c.ChatTemplate, &one) == nil {
		return one, nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(c.ChatTemplate, &named); err != nil {
		return "", fmt.Errorf("tokenizer_config.json: chat_template is neither a string nor a list: %w", err)
	}
	for _, t := range named {
		if t.Name == "default" {
			return t.Template, nil
		}
	}
	return "", errors.New("tokenizer_config.json: chat_template has no template named \"default\"")
}
