/** A picture of somebody's own: checked here for what can be said without the server, then uploaded. */
import { Refused, upload } from "./api";
import { opened } from "./session.svelte";
import type { InputRef } from "./types";

/** What a file chooser offers. */
export const TYPES = [
  "image/png",
  "image/jpeg",
  "image/webp",
  "image/gif",
  "image/bmp",
  "image/tiff",
  "image/x-portable-pixmap",
  "image/x-portable-graymap",
  "image/x-portable-bitmap",
  "image/x-portable-anymap",
] as const;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** Why a file is not even sent; null: the server has a look at it. */
export function refusal(file: Pick<File, "name" | "size" | "type">, most: number): string | null {
  const called = `“${file.name.slice(0, 80)}”`;
  if (file.type !== "" && !(TYPES as readonly string[]).includes(file.type))
    return `${called} is not a picture that can be read here. Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file.`;
  if (file.size > most)
    return `${called} has ${megabytes(file.size)}; at most ${megabytes(most)} are taken. Make the picture smaller, or save it as a JPEG.`;
  return null;
}

/** The uploaded picture as an input. Throws `Refused` with a sentence. */
export async function send(file: File): Promise<InputRef> {
  const why = refusal(file, opened()?.limits.upload_bytes ?? Infinity);
  if (why !== null) throw new Refused(415, why);
  // a name without an ending has no type: what it is, the server sees by its content
  const typed = file.type === "" ? new File([file], file.name, { type: TYPES[0] }) : file;
  try {
    return { kind: "stored", id: (await upload(typed, file.name.slice(0, 200) || "picture")).id };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    throw new Refused(error.status, error.message.charAt(0).toUpperCase() + error.message.slice(1));
  }
}
