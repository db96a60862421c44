/** Upload the user's own pictures, after checks that need no server. */
import { upload } from "./api";
import { Refused } from "./http";
import { opened } from "./session.svelte";
import type { InputRef } from "./types";

/** The file types that the file chooser accepts. */
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

/** Why a file is not uploaded; null if it may be. */
export function refusal(file: Pick<File, "name" | "size" | "type">, most: number): string | null {
  const title = `“${file.name.slice(0, 80)}”`;
  if (file.type !== "" && !(TYPES as readonly string[]).includes(file.type))
    return `${title} is not a picture that can be read here. Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file.`;
  if (file.size > most)
    return `${title} has ${megabytes(file.size)}; the limit is ${megabytes(most)}. Make the picture smaller, or save it as a JPEG.`;
  return null;
}

/** Upload a picture and return it as an input. Throws `Refused` with a message. */
export async function send(file: File): Promise<InputRef> {
  const why = refusal(file, opened()?.limits.upload_bytes ?? Infinity);
  if (why !== null) throw new Refused(415, why);
  // a file without an extension has no type; the server detects the format from the content
  const typed = file.type === "" ? new File([file], file.name, { type: TYPES[0] }) : file;
  try {
    return { kind: "stored", id: (await upload(typed, file.name.slice(0, 200) || "picture")).id };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    throw new Refused(error.status, error.message.charAt(0).toUpperCase() + error.message.slice(1));
  }
}
