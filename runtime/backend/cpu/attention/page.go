package attention

import "fmt"

// ReadPage copies a page, PageBytes bytes, to dst.
func (c *Cache) ReadPage(page int32, dst []byte) error {
	if err := c.checkPage(page, len(dst)); err != nil {
		return err
	}
	copy(dst, c.page(page))
	return nil
}

// WritePage makes a page what ReadPage read from another one, or from a cache of
// the same configuration.
func (c *Cache) WritePage(page int32, src []byte) error {
	if err := c.checkPage(page, len(src)); err != nil {
		return err
	}
	copy(c.page(page), src)
	return nil
}

func (c *Cache) checkPage(page int32, size int) error {
	if page < 0 || int(page) >= c.pages {
		return fmt.Errorf("attention: page %d is outside the cache of %d pages", page, c.pages)
	}
	if size != c.PageBytes() {
		return fmt.Errorf("attention: %d bytes for a page of %d", size, c.PageBytes())
	}
	return nil
}
