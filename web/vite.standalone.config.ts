/**
 * How the pages without a server are built: one script and one style each, `report` for a file that carries its numbers
 * and `widget` for notebooks. The mode names the entry: vite build --config vite.standalone.config.ts --mode report.
 */
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig(({ mode }) => ({
  plugins: [svelte()],
  build: {
    outDir: "../src/convscope/server/static/standalone",
    emptyOutDir: false, // a folder within the page, which the build of the page has emptied
    target: "es2023",
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: `src/standalone/${mode}.ts`,
      preserveEntrySignatures: "strict", // what a widget exports is all that the notebook calls
      output: {
        format: "es",
        codeSplitting: false,
        entryFileNames: `${mode}.js`,
        assetFileNames: `${mode}[extname]`,
      },
    },
  },
}));
